"""Small plans made by hand: the placement is the test's, the predictions are placeholders."""

from typing import Any

import numpy as np

from api.client.bodies import Assignment
from profiles.architecture import Architecture
from profiles.cost.work import Deployment, Phase
from solver.plans import Costs, Entry, LayerPlan, Plan, ProfileRef, Rules, Step

Placement = list[list[tuple[int, float]]]
"""For every head its (device, share) entries."""

QUARTERS: Placement = [[(0, 1.0)], [(1, 1.0)], [(0, 0.25), (1, 0.75)], [(1, 1.0)]]


def whole(*devices: int) -> Placement:
    """Head h on device devices[h]."""
    return [[(device, 1.0)] for device in devices]


def tiny_plan(
    placement: Placement = QUARTERS,
    *,
    layers: int = 2,
    kv_heads: int = 2,
    devices: int = 2,
    budgets: list[int] | None = None,
    context_tokens: int = 256,
    batch_size: int = 1,
    phase: Phase = "prefill",
    deployment: Deployment = "disaggregated",
    device_type: str = "cpu",
    piece_tokens: int = 64,
) -> Plan:
    """`placement` in every layer of a model with heads of 16 dimensions and width 32."""
    heads = len(placement)
    layer = LayerPlan(
        makespan_s=1.0,
        lower_bound_s=1.0,
        bound="none",
        loads_s=[1.0] * devices,
        heads=[[Entry(device=d, share=s) for d, s in entries] for entries in placement],
    )
    return Plan(
        status="feasible",
        solver="by hand",
        makespan_s=float(layers),
        lower_bound_s=float(layers),
        gap=0.0,
        tolerance=1e-3,
        bubble_ratio=0.0,
        imbalance=1.0,
        stock_compatible=False,
        stock_reason="",
        kv_copies=[0] * layers,
        kv_bytes=[0] * devices,
        budgets=[budgets or [64 * (head + 1) for head in range(heads)]] * layers,
        warnings=[],
        layers=[layer] * layers,
        profile=ProfileRef(name="tiny", digest="0", source="tests", synthetic=True),
        architecture=Architecture(
            layers=layers, query_heads=heads, kv_heads=kv_heads, head_dim=16, hidden_size=32
        ),
        workload=Step(
            context_tokens=context_tokens,
            phase=phase,
            batch_size=batch_size,
            deployment=deployment,
            block_tokens=64,
            piece_tokens=piece_tokens,
        ),
        rules=Rules(unit="head", equal_counts=False),
        devices=[device_type] * devices,
        device_types=[device_type],
        cost_model={device_type: "0"},
        costs=Costs(
            head_s=np.ones((layers, heads, 1)).tolist(),
            group_s=np.ones((layers, kv_heads, 1)).tolist(),
            launch_s=[1.0],
        ),
    ).identified()


def assignment(plan: Plan | None = None, **changes: Any) -> Assignment:
    """All layers of a plan for a node that plays all its devices."""
    plan = tiny_plan() if plan is None else plan
    fields: dict[str, Any] = {
        "deployment": "prod",
        "generation": 1,
        "plan_id": plan.id,
        "plan": plan,
        "devices": list(range(len(plan.devices))),
        "layers": list(range(len(plan.layers))),
        "rounds": 2,
    }
    return Assignment.model_validate(fields | changes)
