"""Plans that keep their promises are accepted, whatever their options."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.architecture import Architecture
from solver.plans import Rules
from solver.verifier import verify
from tests.solver.verifier.handmade import handmade
from tests.solver.verifier.placing import Served


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    divisible = draw(st.booleans())
    return Rules(
        unit="head" if divisible else draw(st.sampled_from(["head", "kv_group"])),
        equal_counts=False if divisible else draw(st.booleans()),
        divisible=divisible,
        max_copies=draw(st.none() | st.integers(1, 5)) if divisible else None,
        copies=draw(st.sampled_from(["priced", "free"])),
        objective=draw(st.sampled_from(["mean", "worst"])),
    )


@st.composite
def workloads(draw: st.DrawFn) -> list[Served]:
    raw = draw(st.lists(st.integers(0, 9), min_size=1, max_size=3).filter(sum))
    piece = draw(st.sampled_from([16, 32, 64]))
    return [
        Served(
            context_tokens=draw(st.integers(1, 1500)),
            phase=draw(st.sampled_from(["prefill", "decode"])),
            batch_size=draw(st.integers(1, 4)),
            weight=float(weight),
            piece_tokens=piece,
        )
        for weight in (np.array(raw) / sum(raw)).tolist()
    ]


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rules=rules(),
    served=workloads(),
    group_size=st.integers(1, 3),
    kv_heads=st.integers(1, 4),
    nodes=st.integers(1, 2),
    node_size=st.integers(1, 3),
    unlike=st.booleans(),
    deployment=st.sampled_from(["disaggregated", "tensor_parallel"]),
    retention=st.sampled_from([None, "full", "budget"]),
)
def test_honest_plans_are_accepted(
    seed: int,
    rules: Rules,
    served: list[Served],
    group_size: int,
    kv_heads: int,
    nodes: int,
    node_size: int,
    unlike: bool,
    deployment: str,
    retention: str | None,
) -> None:
    devices = nodes * node_size
    plan = handmade(
        rules,
        seed=seed,
        shape=Architecture(
            layers=2,
            query_heads=group_size * kv_heads,
            kv_heads=kv_heads,
            head_dim=16,
            hidden_size=128,
        ),
        types=["h200" if not unlike or device % 2 else "a100" for device in range(devices)],
        served=served,
        deployment=deployment,
        retention=retention,
        node_size=node_size,
    )
    verdict = verify(plan)
    assert verdict.faults == []
    assert [layer.verdict for layer in verdict.layers] == ["proved"] * 2
