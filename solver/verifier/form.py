"""The form of a plan: its fields, their types and ranges, the shapes of its arrays, and its id.

A form takes a path, a value and the list of faults so far; it returns the value with every
optional field in it, or adds a fault that names the path.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
Wanted = Iterator[tuple[str, Any, tuple[int, ...]]]
UNTIMED = ("id", "solve_s", "created_at")
Form = Callable[[str, Any, list[str]], Any]


@dataclass(frozen=True)
class Default:
    """A field that may be left out, and what it then is."""

    form: Form
    value: Any


def number(low: float, high: float) -> Form:
    """A number in [low, high]; NaN is in no range."""

    def read(path: str, value: Any, faults: list[str]) -> Any:
        real = isinstance(value, int | float) and not isinstance(value, bool)
        if not real or not low <= value <= high:
            faults.append(f"{path}: is not a number from {low:g} to {high:g}")
        return value

    return read


def whole(low: int, high: int) -> Form:
    """A whole number in [low, high]."""

    def read(path: str, value: Any, faults: list[str]) -> Any:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            faults.append(f"{path}: is not a whole number from {low} to {high}")
        return value

    return read


def text(*options: str) -> Form:
    """Any text, or one of the options."""

    def read(path: str, value: Any, faults: list[str]) -> Any:
        if not isinstance(value, str):
            faults.append(f"{path}: is not text")
        elif options and value not in options:
            faults.append(f"{path}: is not one of {', '.join(options)}")
        return value

    return read


def flag(path: str, value: Any, faults: list[str]) -> Any:
    """True or false."""
    if not isinstance(value, bool):
        faults.append(f"{path}: is not true or false")
    return value


def named_texts(path: str, value: Any, faults: list[str]) -> Any:
    """An object of texts, whatever their names."""
    pairs = value.items() if isinstance(value, dict) else [(None, None)]
    if not all(isinstance(name, str) and isinstance(said, str) for name, said in pairs):
        faults.append(f"{path}: is not an object of texts")
    return value


def maybe(form: Form) -> Form:
    """The form, or null."""

    def read(path: str, value: Any, faults: list[str]) -> Any:
        return None if value is None else form(path, value, faults)

    return read


def listing(each: Form) -> Form:
    """A list of any length."""

    def read(path: str, value: Any, faults: list[str]) -> Any:
        if not isinstance(value, list | tuple):
            faults.append(f"{path}: is not a list")
            return []
        return [each(f"{path}.{index}", part, faults) for index, part in enumerate(value)]

    return read


def one_of(tag: str, **records: Form) -> Form:
    """One of the records, named by its field `tag`."""

    def read(path: str, value: Any, faults: list[str]) -> Any:
        name = value.get(tag) if isinstance(value, dict) else None
        if not isinstance(name, str) or name not in records:
            faults.append(f"{path}.{tag}: is not one of {', '.join(records)}")
            return value
        return {tag: name, **records[name](path, value, faults)}

    return read


def record(**fields: Form | Default) -> Form:
    """An object with these fields."""

    def read(path: str, value: Any, faults: list[str]) -> Any:
        if not isinstance(value, dict):
            faults.append(f"{path or 'plan'}: is not an object")
            return {}
        found = {}
        for name, field in fields.items():
            where = f"{path}.{name}" if path else name
            if name in value:
                form = field.form if isinstance(field, Default) else field
                found[name] = form(where, value[name], faults)
            elif isinstance(field, Default):
                found[name] = field.value
            else:
                faults.append(f"{where}: is missing")
        return found

    return read


SECONDS = number(0, 1e15)
SIGNED_SECONDS = number(-1e15, 1e15)
SHARE = number(0, 1)
COUNT = whole(0, 2**62)
SIZE = whole(1, 2**40)
BUDGETS = listing(listing(SIZE))
DEPLOYMENT = text("disaggregated", "tensor_parallel")

ENTRY = record(device=COUNT, share=Default(SHARE, 1.0))
LAYER = record(
    makespan_s=SECONDS,
    lower_bound_s=SECONDS,
    bound=text(),
    loads_s=listing(SECONDS),
    heads=listing(listing(ENTRY)),
)
COSTS = record(
    head_s=listing(listing(listing(SECONDS))),
    part_s=Default(listing(listing(listing(SECONDS))), []),
    group_s=listing(listing(listing(SECONDS))),
    launch_s=listing(SECONDS),
)
PROFILE = record(name=text(), digest=text(), source=text(), synthetic=flag)
ARCHITECTURE = record(
    layers=SIZE,
    query_heads=SIZE,
    kv_heads=SIZE,
    head_dim=SIZE,
    hidden_size=SIZE,
    dtype=Default(text("bfloat16", "float16", "float32"), "bfloat16"),
    windows=Default(listing(maybe(SIZE)), []),
    mlp_size=Default(maybe(SIZE), None),
    mlp_matrices=Default(whole(2, 3), 3),
    experts=Default(SIZE, 1),
    experts_per_token=Default(SIZE, 1),
)
STEP_FIELDS = record(
    context_tokens=SIZE,
    phase=text("prefill", "decode"),
    batch_size=SIZE,
    deployment=DEPLOYMENT,
    block_tokens=SIZE,
    piece_tokens=Default(SIZE, None),
)


def step(path: str, value: Any, faults: list[str]) -> Any:
    """A workload, whose key pieces divide its query blocks; they are the same unless it says so."""
    before = len(faults)
    found = STEP_FIELDS(path, value, faults)
    if len(faults) > before:
        return found
    block = found["block_tokens"]
    found["piece_tokens"] = piece = found["piece_tokens"] or block
    if block % piece:
        faults.append(f"{path}.piece_tokens: {piece} does not divide {path}.block_tokens {block}")
    return found


RULES = record(
    unit=text("head", "kv_group"),
    equal_counts=flag,
    divisible=Default(flag, False),
    max_copies=Default(maybe(SIZE), None),
    copies=Default(text("priced", "free"), "priced"),
    objective=Default(text("mean", "worst"), "mean"),
)
POOLED = {"kind": "pooled"}
SELECTION = one_of(
    "kind",
    pooled=record(),
    vertical_slash=record(),
    sampled=record(rows=Default(whole(1, 16), 2)),
    sink_local=record(sink_tokens=COUNT),
    strided=record(
        block_tokens=SIZE, local_blocks=SIZE, vert_stride=SIZE, dense_kv_heads=Default(COUNT, 0)
    ),
)
OTHER_WORKLOAD = record(
    weight=SHARE,
    workload=step,
    profile=PROFILE,
    budgets=BUDGETS,
    selection=Default(SELECTION, POOLED),
    costs=COSTS,
    makespan_s=SECONDS,
    loads_s=listing(listing(SECONDS)),
)
MEMORY = record(
    kv_retention=text("full", "budget"),
    context_tokens=SIZE,
    batch_size=SIZE,
    limit_bytes=listing(COUNT),
    weight_bytes=listing(COUNT),
    kv_bytes=listing(COUNT),
)
PADDING = record(
    least_slots=SIZE,
    padded=COUNT,
    padding_s=SECONDS,
    kv_share=SHARE,
    others=Default(listing(record(slots=SIZE, makespan_s=SECONDS)), []),
    pays_from_tokens=Default(maybe(SIZE), None),
)
MOVING = record(
    current_plan=text(),
    bytes=COUNT,
    seconds=SECONDS,
    amortise_steps=SIZE,
    current_makespan_s=SECONDS,
    gain_s=SIGNED_SECONDS,
    kept=flag,
)
RECOVERED = record(curve=text("selected", "oracle"), mean=listing(SHARE), least=listing(SHARE))
NATS = number(0, 1000)
LOSS = record(bound=NATS, nats=NATS, low=NATS, high=NATS)
FILLED = record(added_tokens=COUNT, recovery_mean=listing(SHARE), recovery_min=listing(SHARE))
ELASTIC = record(
    alpha=listing(listing(whole(-(2**40), 2**40))),
    beta=listing(listing(SHARE)),
    loss=number(0, 1e9),
    lower_bound=number(0, 1e9),
    density=listing(SHARE),
    contexts=listing(SIZE),
)
ELSEWHERE = record(
    deployment=DEPLOYMENT, makespan_s=SECONDS, replanned_s=SECONDS, lower_bound_s=SECONDS
)
WHOLE_STEP = record(
    step_s=SECONDS,
    attention_s=SECONDS,
    projections_s=SECONDS,
    mlp_s=SECONDS,
    all_reduce_s=SECONDS,
    contiguous_step_s=SECONDS,
    contiguous_attention_s=SECONDS,
    contiguous_projections_s=SECONDS,
    attention_share=SHARE,
    gain=number(-1, 1e9),
    pays_from_tokens=Default(maybe(SIZE), None),
    tried_to_tokens=Default(maybe(SIZE), None),
)
NODES = record(
    size=SIZE,
    cross_node_copies=listing(COUNT),
    replicas=COUNT,
    replica_makespan_s=SECONDS,
    replica_lower_bound_s=SECONDS,
)
PLAN = record(
    id=Default(text(), ""),
    status=text("optimal", "feasible"),
    solver=text(),
    reason=Default(maybe(text()), None),
    makespan_s=SECONDS,
    lower_bound_s=SECONDS,
    gap=SHARE,
    tolerance=SHARE,
    bubble_ratio=SHARE,
    imbalance=maybe(SECONDS),
    stock_compatible=flag,
    stock_reason=text(),
    kv_copies=listing(COUNT),
    divisions=Default(listing(COUNT), []),
    kv_bytes=listing(COUNT),
    budgets=BUDGETS,
    selection=Default(SELECTION, POOLED),
    warnings=listing(text()),
    layers=listing(LAYER),
    profile=PROFILE,
    architecture=ARCHITECTURE,
    workload=step,
    rules=RULES,
    devices=listing(text()),
    device_types=listing(text()),
    cost_model=named_texts,
    costs=COSTS,
    slots=Default(maybe(SIZE), None),
    padding=Default(maybe(PADDING), None),
    weight=Default(SHARE, 1.0),
    other_workloads=Default(listing(OTHER_WORKLOAD), []),
    memory=Default(maybe(MEMORY), None),
    moving=Default(maybe(MOVING), None),
    recovery=Default(maybe(RECOVERED), None),
    loss=Default(maybe(LOSS), None),
    budget_gap=Default(maybe(SHARE), None),
    filled=Default(maybe(FILLED), None),
    elastic=Default(maybe(ELASTIC), None),
    whole_step=Default(maybe(WHOLE_STEP), None),
    elsewhere=Default(maybe(ELSEWHERE), None),
    nodes=Default(maybe(NODES), None),
    solve_s=Default(SECONDS, 0.0),
    created_at=Default(text(), ""),
)


def read_plan(plan: Any) -> tuple[Json, list[str]]:
    """The plan with every optional field in it, and what is not of its form."""
    faults: list[str] = []
    read: Json = PLAN("", plan, faults)
    return read, faults or _wrong_shapes(read)


def _wrong_shapes(plan: Json) -> list[str]:
    """Arrays of a wrong shape, and types, groups and recoveries that do not fit each other."""
    shape, devices, kinds = plan["architecture"], plan["devices"], plan["device_types"]
    faults = [
        f"{name}: not of shape {lengths}"
        for name, array, lengths in _wanted(plan)
        if not _is(array, lengths)
    ]
    if not devices or set(devices) != set(kinds) or len(set(kinds)) != len(kinds):
        faults.append("device_types are not the distinct types of devices")
    if shape["query_heads"] % shape["kv_heads"]:
        faults.append("architecture: query_heads is not a multiple of kv_heads")
    if (plan["slots"] is None) != (plan["padding"] is None):
        faults.append("slots and padding: one says that devices have slots, the other does not")
    faults += [
        f"other_workloads.{index}: its deployment is not the first workload's"
        for index, other in enumerate(plan["other_workloads"])
        if other["workload"]["deployment"] != plan["workload"]["deployment"]
    ]
    return faults


def _wanted(plan: Json) -> Wanted:
    layers, heads = plan["architecture"]["layers"], plan["architecture"]["query_heads"]
    devices = len(plan["devices"])
    yield "layers", plan["layers"], (layers,)
    for index, layer in enumerate(plan["layers"]):
        yield f"layers.{index}.loads_s", layer["loads_s"], (devices,)
        yield f"layers.{index}.heads", layer["heads"], (heads,)
    if plan["architecture"]["windows"]:
        yield "architecture.windows", plan["architecture"]["windows"], (layers,)
    yield "kv_copies", plan["kv_copies"], (layers,)
    if plan["divisions"]:
        yield "divisions", plan["divisions"], (layers,)
    yield "kv_bytes", plan["kv_bytes"], (devices,)
    yield from _of_workload(plan, "", plan)
    for index, other in enumerate(plan["other_workloads"]):
        yield from _of_workload(plan, f"other_workloads.{index}.", other)
        yield f"other_workloads.{index}.loads_s", other["loads_s"], (layers, devices)
    if plan["memory"] is not None:
        for name in ("limit_bytes", "weight_bytes", "kv_bytes"):
            yield f"memory.{name}", plan["memory"][name], (devices,)
    if plan["recovery"] is not None:
        for name in ("mean", "least"):
            yield f"recovery.{name}", plan["recovery"][name], (layers,)
    if plan["filled"] is not None:
        for name in ("recovery_mean", "recovery_min"):
            yield f"filled.{name}", plan["filled"][name], (2,)
    if plan["nodes"] is not None:
        yield "nodes.cross_node_copies", plan["nodes"]["cross_node_copies"], (layers,)


def _of_workload(plan: Json, where: str, workload: Json) -> Wanted:
    """Budgets and costs of the first workload (the plan itself) or of another."""
    shape, types, costs = plan["architecture"], len(plan["device_types"]), workload["costs"]
    layers, heads = shape["layers"], shape["query_heads"]
    yield f"{where}budgets", workload["budgets"], (layers, heads)
    yield f"{where}costs.head_s", costs["head_s"], (layers, heads, types)
    if costs["part_s"]:
        yield f"{where}costs.part_s", costs["part_s"], (layers, heads, types)
    yield f"{where}costs.group_s", costs["group_s"], (layers, shape["kv_heads"], types)
    yield f"{where}costs.launch_s", costs["launch_s"], (types,)


def _is(array: Any, lengths: tuple[int, ...]) -> bool:
    rest = lengths[1:]
    return len(array) == lengths[0] and (not rest or all(_is(part, rest) for part in array))


def wrong_id(plan: dict[str, Any]) -> list[str]:
    """Whether the id is that of the content as it stands, fields left out staying out."""
    content = {name: value for name, value in plan.items() if name not in UNTIMED}
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return ["id: the content is not JSON, so that it has none"]
    digest = hashlib.sha256(text.encode()).hexdigest()
    return [] if digest == plan.get("id") else [f"id is not the SHA-256 of the content ({digest})"]
