"""Plans made by hand: a random placement with honest figures, computed apart from the verifier."""

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from profiles.architecture import Architecture
from solver.plans import (
    Costs,
    Entry,
    LayerPlan,
    Memory,
    Nodes,
    OtherWorkload,
    Plan,
    ProfileRef,
    Rules,
    Step,
)
from solver.problem import PlacementProblem
from tests.solver.verifier.placing import (
    BLOCK,
    Served,
    loads_of,
    mean_bounds,
    random_budgets,
    random_parts,
    random_problem,
)

Json = dict[str, Any]
Layers = list[list[list[Entry]]]
REF = ProfileRef(name="handmade", digest="0" * 64, source="made for the tests", synthetic=True)
UNDIVIDED = Rules(unit="head", equal_counts=False)
DIVIDED = Rules(unit="head", equal_counts=False, divisible=True)
SHAPE = Architecture(layers=3, query_heads=8, kv_heads=4, head_dim=16, hidden_size=128)
TOKEN_BYTES = 2 * 16 * 2


def sealed(plan: Json) -> Json:
    """Give a tampered plan the id of its content, so that only the lie itself can be found."""
    content = {k: v for k, v in plan.items() if k not in ("id", "solve_s", "created_at")}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {**plan, "id": hashlib.sha256(text.encode()).hexdigest()}


def handmade(
    rules: Rules = UNDIVIDED,
    *,
    seed: int = 0,
    shape: Architecture = SHAPE,
    types: Sequence[str] = ("h200",) * 3,
    served: Sequence[Served] = (Served(),),
    deployment: str = "disaggregated",
    retention: str | None = None,
    node_size: int | None = None,
) -> Json:
    """A plan that keeps its promises, as JSON."""
    rng = random.Random(seed)
    budgets = [random_budgets(rng, one, shape.layers, shape.query_heads) for one in served]
    problem = random_problem(rng, shape, types, served, rules)
    parts = [
        random_parts(rng, served[0], budgets[0][i], shape, len(types), rules)
        for i in range(shape.layers)
    ]
    heads = [[[Entry(device=d, share=s) for d, s in head] for head in of] for of in parts]
    loads = loads_of(problem, served, budgets, parts)
    makespans = loads.max(axis=2)
    blended, layer_s = np.einsum("w,lwd->ld", problem.weights, loads), makespans @ problem.weights
    bounds = np.minimum(mean_bounds(problem), layer_s)
    totals = makespans.sum(axis=0)
    makespan_s = float(totals.max() if rules.objective == "worst" else layer_s.sum())
    bound_s = min(float(bounds.sum()), makespan_s)
    most = np.max(budgets, axis=0).tolist()
    steps = [_step(one, deployment) for one in served]
    plan = Plan(
        status="feasible",
        solver="auto",
        makespan_s=makespan_s,
        lower_bound_s=bound_s,
        gap=1 - bound_s / makespan_s,
        tolerance=1e-3,
        bubble_ratio=max(0.0, float(1 - blended.sum() / (len(types) * layer_s.sum()))),
        imbalance=float(layer_s.sum() / blended.mean(axis=1).sum()) if problem.identical else None,
        stock_compatible=_stock(heads, shape, len(types)),
        stock_reason="",
        kv_copies=[len(_pairs(layer, shape)) - shape.kv_heads for layer in heads],
        divisions=[sum(len(entries) - 1 for entries in layer) for layer in heads],
        kv_bytes=_kv_bytes(heads, shape, len(types), steps[0]),
        budgets=budgets[0],
        warnings=[],
        layers=[
            LayerPlan(
                makespan_s=float(layer_s[index]),
                lower_bound_s=float(bounds[index]),
                bound=_proof(len(served), problem.identical),
                loads_s=blended[index].tolist(),
                heads=layer,
            )
            for index, layer in enumerate(heads)
        ],
        profile=REF,
        architecture=shape,
        workload=steps[0],
        rules=rules,
        devices=list(types),
        device_types=list(dict.fromkeys(types)),
        cost_model=dict.fromkeys(types, "1"),
        costs=_costs(problem, 0),
        weight=served[0].weight,
        other_workloads=[
            OtherWorkload(
                weight=served[w].weight,
                workload=steps[w],
                profile=REF,
                budgets=budgets[w],
                costs=_costs(problem, w),
                makespan_s=float(totals[w]),
                loads_s=loads[:, w].tolist(),
            )
            for w in range(1, len(served))
        ],
        memory=_memory(retention, heads, shape, len(types), most, steps[0]),
        nodes=_nodes(node_size, heads, shape, len(types)),
    )
    made: Json = json.loads(plan.identified().model_dump_json())
    return made


def _step(one: Served, deployment: str) -> Step:
    return Step.model_validate(
        {
            "context_tokens": one.context_tokens,
            "phase": one.phase,
            "batch_size": one.batch_size,
            "deployment": deployment,
            "block_tokens": BLOCK,
            "piece_tokens": one.piece_tokens,
        }
    )


def _proof(workloads: int, identical: bool) -> str:
    proof = "mean load" if identical else "mean of fastest devices"
    return proof if workloads == 1 else f"weighted sum of {proof}"


def _costs(problem: PlacementProblem, workload: int) -> Costs:
    return Costs(
        head_s=problem.head_s[workload].tolist(),
        part_s=problem.part_s[workload].tolist() if problem.part_s.any() else [],
        group_s=problem.group_s[workload].tolist(),
        launch_s=problem.launch_s[workload].tolist(),
    )


def _pairs(layer: list[list[Entry]], shape: Architecture) -> set[tuple[int, int]]:
    return {(shape.kv_head(head), e.device) for head, part in enumerate(layer) for e in part}


def _stock(heads: Layers, shape: Architecture, devices: int) -> bool:
    for layer in heads:
        pairs = [device for _, device in _pairs(layer, shape)]
        counts = {pairs.count(device) for device in range(devices)}
        whole = len(pairs) == shape.kv_heads and len(counts) == 1
        entries = [entry.device for part in layer for entry in part]
        shared_out = {entries.count(device) for device in range(devices)}
        undivided = len(entries) == len(layer)
        copied = counts == {1} and undivided and shared_out == {len(layer) / devices}
        if not whole and not (copied and devices % shape.kv_heads == 0):
            return False
    return True


def _kv_bytes(heads: Layers, shape: Architecture, devices: int, step: Step) -> list[int]:
    held = [device for layer in heads for _, device in _pairs(layer, shape)]
    each = TOKEN_BYTES * step.context_tokens * step.batch_size
    return [held.count(device) * each for device in range(devices)]


def _memory(
    retention: str | None,
    heads: Layers,
    shape: Architecture,
    devices: int,
    budgets: list[list[int]],
    step: Step,
) -> Memory | None:
    """At half the plan's context, so that `budgets`, the workloads' largest, are cut to it."""
    if retention is None:
        return None
    piece = step.piece_tokens
    context, batch = max(step.context_tokens // 2, 1), 3
    kv, weights = [0] * devices, [0] * devices
    for layer, tokens in zip(heads, budgets, strict=True):
        for group, device in _pairs(layer, shape):
            kept = [
                context if retention == "full" else min(-(-tokens[h] // piece) * piece, context)
                for h, part in enumerate(layer)
                if shape.kv_head(h) == group and any(e.device == device for e in part)
            ]
            kv[device] += max(kept) * TOKEN_BYTES * batch
            weights[device] += (2 * len(kept) + 2) * 128 * 16 * 2
    if step.deployment == "disaggregated":
        weights = [0] * devices
    limits = [k + w for k, w in zip(kv, weights, strict=True)]
    return Memory.model_validate(
        {
            "kv_retention": retention,
            "context_tokens": context,
            "batch_size": batch,
            "limit_bytes": limits,
            "weight_bytes": weights,
            "kv_bytes": kv,
        }
    )


def _nodes(size: int | None, heads: Layers, shape: Architecture, devices: int) -> Nodes | None:
    if size is None:
        return None
    copies = [
        len({(group, device // size) for group, device in _pairs(layer, shape)}) - shape.kv_heads
        for layer in heads
    ]
    return Nodes(
        size=size,
        cross_node_copies=copies,
        replicas=devices // size,
        replica_makespan_s=2e-3,
        replica_lower_bound_s=1e-3,
    )
