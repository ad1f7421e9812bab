"""The fields of a plan, their types and their ranges."""

from typing import Any

from solver.verify.form import (
    Default,
    flag,
    listing,
    maybe,
    named_texts,
    number,
    one_of,
    record,
    text,
    whole,
)

Json = dict[str, Any]

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
    weight=Default(SHARE, 1.0),
    other_workloads=Default(listing(OTHER_WORKLOAD), []),
    memory=Default(maybe(MEMORY), None),
    moving=Default(maybe(MOVING), None),
    recovery=Default(maybe(RECOVERED), None),
    filled=Default(maybe(FILLED), None),
    elastic=Default(maybe(ELASTIC), None),
    elsewhere=Default(maybe(ELSEWHERE), None),
    nodes=Default(maybe(NODES), None),
    solve_s=Default(SECONDS, 0.0),
    created_at=Default(text(), ""),
)


def read_plan(plan: Any, faults: list[str]) -> Json:
    """The plan with every optional field in it; what is not of its form is added to `faults`."""
    read: Json = PLAN("", plan, faults)
    return read
