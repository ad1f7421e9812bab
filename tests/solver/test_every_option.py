"""Random problems under every combination of options: certified, and never worse than the plain."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiles.heads import BudgetsForm
from profiles.model import ModelProfile
from tests.solver.profiles import faults, plan_of, stated_budgets

LIMIT_S = 0.2

placements = st.one_of(
    st.fixed_dictionaries(
        {"unit": st.sampled_from(["head", "kv_group"]), "equal_counts": st.booleans()},
        optional={"copies": st.sampled_from(["priced", "free"])},
    ),
    st.fixed_dictionaries(
        {"divisible": st.just(True), "copies": st.sampled_from(["priced", "free"])},
        optional={"max_copies": st.integers(1, 3), "node_size": st.just(2)},
    ),
    st.fixed_dictionaries(
        {"slots": st.just("auto"), "divisible": st.booleans()},
        optional={"max_copies": st.integers(1, 3)},
    ),
)
memories = st.sampled_from([None, {"kv_retention": "full"}, {"kv_retention": "budget"}])
steps = st.fixed_dictionaries(
    {
        "context_tokens": st.sampled_from([640, 4096, 9000]),
        "phase": st.sampled_from(["prefill", "decode"]),
        "batch_size": st.sampled_from([1, 3]),
        "weight": st.sampled_from([1.0, 2.5]),
    }
)
devices = st.sampled_from(
    [
        [{"type": "h200", "count": 1}],
        [{"type": "h200", "count": 4}],
        [{"type": "h100", "count": 2}, {"type": "a100", "count": 2}],
        [{"type": "h200", "count": 1}, {"type": "a100", "count": 1}, {"type": "cpu", "count": 2}],
    ]
)


@st.composite
def profiles(draw: st.DrawFn) -> ModelProfile:
    kv_heads, size = draw(st.sampled_from([(2, 4), (4, 2), (8, 1), (3, 2)]))
    shape = (draw(st.integers(1, 2)), kv_heads * size)
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    mlp_size = draw(st.sampled_from([None, 1024]))
    return stated_budgets(rng.integers(1, 100, shape) * 64.0, kv_heads, mlp_size=mlp_size)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    placement = {**draw(placements), "memory": draw(memories)}
    deployment = draw(st.sampled_from(["disaggregated", "tensor_parallel"]))
    if "slots" in placement:
        deployment = "tensor_parallel"
        placement["memory"] = draw(st.sampled_from([None, {"kv_retention": "full"}]))
        if not placement["divisible"]:
            placement.pop("max_copies", None)
    kinds = draw(devices)
    count = sum(kind["count"] for kind in kinds)
    if placement.get("node_size") and (count % 2 or len(kinds) > 1):
        del placement["node_size"]
    return {
        "devices": kinds,
        "workloads": draw(st.lists(steps, min_size=1, max_size=3)),
        "objective": draw(st.sampled_from(["mean", "worst"])),
        "deployment": deployment,
        "placement": placement,
        "time_limit_s": LIMIT_S,
        "tolerance": draw(st.sampled_from([1e-3, 0.02])),
    }


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(profiles(), requests())
def test_the_verifier_accepts_and_auto_is_never_worse(
    profile: ModelProfile, request: dict[str, Any]
) -> None:
    plan = plan_of(profile, **request)
    assert faults(plan) == []
    assert plan.lower_bound_s <= plan.makespan_s * (1 + 1e-12)
    whole = {k: v for k, v in request["placement"].items() if k in ("unit", "equal_counts")}
    plain = {**whole, "copies": request["placement"].get("copies", "priced"), "slots": plan.slots}
    methods = ["contiguous"] if whole.get("equal_counts") else ["contiguous", "greedy"]
    if request["placement"]["memory"] is None:
        for method in methods:
            other = plan_of(profile, **{**request, "placement": plain, "method": method})
            assert plan.makespan_s <= other.makespan_s * (1 + 1e-9), (request, method)
            assert faults(other) == []


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(profiles(), st.booleans(), st.randoms(use_true_random=False))
def test_permuted_groups_leave_bounds_valid_and_proved_optima_equal(
    profile: ModelProfile, equal_counts: bool, random: Any
) -> None:
    shape = profile.architecture
    order = list(range(shape.kv_heads))
    random.shuffle(order)
    assert isinstance(profile.heads, BudgetsForm)
    grouped = np.reshape(profile.heads.tokens, (shape.layers, shape.kv_heads, -1))
    tokens = grouped[:, order].reshape(shape.layers, -1).tolist()
    permuted = profile.model_copy(update={"heads": BudgetsForm(tokens=tokens)})
    rules = {"placement": {"equal_counts": equal_counts}, "gpus": 3, "time_limit_s": 2}
    a, b = (plan_of(p, **rules) for p in (profile, permuted))
    assert a.lower_bound_s <= b.makespan_s * (1 + 1e-9)
    assert b.lower_bound_s <= a.makespan_s * (1 + 1e-9)
    if a.status == b.status == "optimal":
        assert a.makespan_s == pytest.approx(b.makespan_s, rel=2.1e-3)


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(profiles(), st.booleans())
def test_the_order_of_device_types_does_not_matter(profile: ModelProfile, divisible: bool) -> None:
    kinds = [{"type": "h200", "count": 2}, {"type": "a100", "count": 2}]
    rules = {"placement": {"divisible": divisible}, "time_limit_s": 2}
    a = plan_of(profile, devices=kinds, **rules)
    b = plan_of(profile, devices=kinds[::-1], **rules)
    assert a.lower_bound_s <= b.makespan_s * (1 + 1e-9)
    assert b.lower_bound_s <= a.makespan_s * (1 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("divisible", [False, True])
def test_a_seed_makes_the_search_repeatable(divisible: bool) -> None:
    from tests.solver.profiles import budgets_profile

    profile = budgets_profile(layers=2, heads=16, kv_heads=4, seed=4)
    rules = {"seed": 7, "placement": {"divisible": divisible}, "time_limit_s": 20, "gpus": 3}
    first, second = (plan_of(profile, **rules) for _ in range(2))
    assert "by the clock" not in (first.reason or "")
    assert first.id == second.id
