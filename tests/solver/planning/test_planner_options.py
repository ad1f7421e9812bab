"""Plans under every option: deployments, copies, divided heads, memory, moving and filling."""

import numpy as np
import pytest

from profiles.catalogue import DEFAULT_PROFILE, load_profile
from profiles.errors import HplbError
from profiles.heads import BudgetsForm
from profiles.selection import Sampled
from tests.solver.profiles import budgets_profile, faults, plan_of


def test_the_other_deployment_is_costed_beside_the_one_asked_for() -> None:
    profile = budgets_profile(heads=32, kv_heads=8)
    here = plan_of(profile, deployment="disaggregated", method="greedy")
    there = plan_of(profile, deployment="tensor_parallel", method="greedy")
    assert here.elsewhere is not None
    assert here.elsewhere.deployment == "tensor_parallel"
    assert here.elsewhere.makespan_s == pytest.approx(there.makespan_s, rel=0.2)
    assert here.elsewhere.replanned_s <= there.makespan_s
    assert here.elsewhere.lower_bound_s <= here.elsewhere.replanned_s


def test_free_copies_cost_nothing_and_spread_each_groups_charge() -> None:
    profile = budgets_profile(heads=32, kv_heads=8)
    priced = plan_of(profile, method="contiguous")
    free = plan_of(profile, method="contiguous", placement={"copies": "free"})
    assert sum(map(sum, free.layers[0].heads and [layer.loads_s for layer in free.layers])) == (
        pytest.approx(sum(sum(layer.loads_s) for layer in priced.layers))
    )
    scattered = plan_of(profile, method="greedy", placement={"copies": "free"})
    assert scattered.makespan_s < plan_of(profile, method="greedy").makespan_s


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_divided_heads_reach_the_mean_where_copies_are_free(phase: str) -> None:
    plan = plan_of(
        budgets_profile(heads=8, kv_heads=8),
        gpus=3,
        phase=phase,
        batch_size=64,
        context_tokens=65536,
        placement={"divisible": True, "copies": "free"},
    )
    assert faults(plan) == []
    assert max(plan.divisions) <= 2
    assert sum(plan.divisions) > 0
    assert plan.imbalance is not None
    assert plan.imbalance <= 1.01


def test_nodes_are_compared_with_replicas() -> None:
    plan = plan_of(
        budgets_profile(heads=16, kv_heads=16),
        gpus=8,
        context_tokens=65536,
        placement={"divisible": True, "node_size": 4},
    )
    assert faults(plan) == []
    assert plan.nodes is not None
    assert (plan.nodes.replicas, plan.nodes.size) == (2, 4)
    assert max(plan.nodes.cross_node_copies) <= 1
    # Twice the devices, at best half the time.
    assert plan.nodes.replica_lower_bound_s >= plan.makespan_s
    assert 2 * plan.makespan_s >= plan.nodes.replica_lower_bound_s


def test_memory_that_does_not_reach_is_an_error_in_bytes() -> None:
    profile = budgets_profile(heads=8, kv_heads=4)
    with pytest.raises(HplbError, match=r"\d+ bytes short"):
        plan_of(profile, placement={"memory": {"limit_bytes": 1000}})
    plan = plan_of(profile, placement={"memory": {"kv_retention": "budget"}})
    assert faults(plan) == []
    assert plan.memory is not None
    assert max(plan.memory.kv_bytes) < plan.memory.limit_bytes[0]


def test_memory_evens_out_by_renaming_devices() -> None:
    profile = budgets_profile(layers=8, heads=8, kv_heads=8, seed=1)
    free = plan_of(profile, method="contiguous", gpus=3)
    unit = sum(free.kv_bytes) // 64
    limit = 22 * unit  # 64 KV groups on 3 devices: the least there is
    assert max(free.kv_bytes) > limit
    plan = plan_of(
        profile, method="contiguous", gpus=3, placement={"memory": {"limit_bytes": limit}}
    )
    assert faults(plan) == []
    assert max(plan.kv_bytes) <= limit
    assert plan.makespan_s == pytest.approx(free.makespan_s)


def test_a_small_gain_does_not_move_the_deployment_and_a_large_one_does() -> None:
    profile = budgets_profile(layers=4, heads=32, kv_heads=8, seed=3)
    step = {"phase": "decode", "batch_size": 8}
    now = plan_of(profile, method="contiguous", **step)
    stays = plan_of(profile, placement={"current_plan": now, "amortise_steps": 1}, **step)
    moves = plan_of(profile, placement={"current_plan": now, "amortise_steps": 10**8}, **step)
    assert faults(stays) == faults(moves) == []
    assert stays.moving is not None
    assert moves.moving is not None
    assert stays.moving.kept
    assert stays.moving.bytes == 0
    assert stays.makespan_s == pytest.approx(now.makespan_s)
    assert not moves.moving.kept
    assert moves.moving.bytes > 0
    assert moves.moving.gain_s > 0
    with pytest.raises(HplbError, match=r"placement\.current_plan"):
        plan_of(profile, gpus=2, placement={"current_plan": now}, **step)


def test_filling_the_bubble_buys_recovery_at_the_same_makespan() -> None:
    profile = load_profile(DEFAULT_PROFILE)
    fields = {"gpus": 8, "context_tokens": 32768, "method": "greedy"}
    plain = plan_of(profile, **fields)
    filled = plan_of(profile, **fields, budget={"fill": True})
    assert faults(filled) == []
    assert filled.filled is not None
    assert filled.filled.added_tokens > 0
    assert filled.filled.recovery_mean[1] > filled.filled.recovery_mean[0]
    assert filled.makespan_s <= plain.makespan_s * (1 + 1e-9)
    assert filled.bubble_ratio < plain.bubble_ratio
    assert np.all(np.array(filled.budgets) >= np.array(plain.budgets))
    with pytest.raises(HplbError, match=r"budget\.fill.*form 'budgets'"):
        plan_of(budgets_profile(), budget={"fill": True})


def test_a_bound_does_not_outlive_costs_that_fell() -> None:
    """A head filled until it attends to all samples no rows: it may cost less than before."""
    profile = load_profile(DEFAULT_PROFILE).model_copy(update={"selection": Sampled(rows=16)})
    filled = plan_of(
        profile,
        context_tokens=4096,
        block_tokens=16,
        method="greedy",
        budget={"policy": "max_min", "tokens": 3500, "fill": True},
        time_limit_s=3,
    )
    assert (np.array(filled.budgets) == 4096).any()
    assert faults(filled) == []


def test_nodes_keep_the_limit_of_copies() -> None:
    for tokens, most in (([8192.0] * 4, 2), ([8192.0, 64.0, 64.0, 64.0], 1)):
        profile = budgets_profile(layers=1, heads=4, kv_heads=4)
        profile = profile.model_copy(update={"heads": BudgetsForm(tokens=[tokens])})
        rules = {"divisible": True, "max_copies": most, "node_size": 2}
        plan = plan_of(profile, gpus=4, placement=rules)
        assert faults(plan) == []


def test_divided_plans_of_short_contexts_are_never_worse_than_whole_ones() -> None:
    for seed in range(12):
        profile = budgets_profile(layers=1, heads=8, kv_heads=4, seed=seed)
        short = {"context_tokens": 640, "gpus": 3}
        divided = plan_of(profile, placement={"divisible": True}, **short)
        for method in ("contiguous", "greedy"):
            whole = plan_of(profile, method=method, **short)
            assert divided.makespan_s <= whole.makespan_s * (1 + 1e-9), (seed, method)


def test_heuristics_stay_what_they_are_under_the_worst_case() -> None:
    profile = budgets_profile(layers=1, heads=4, kv_heads=4, seed=1)
    steps = [{"context_tokens": 4096}, {"context_tokens": 8192, "phase": "decode"}]
    plan = plan_of(profile, workloads=steps, objective="worst", method="contiguous", gpus=2)
    assert faults(plan) == []
    assert [entries[0].device for entries in plan.layers[0].heads] == [0, 0, 1, 1]


def test_a_current_plan_that_is_none_is_refused_by_name() -> None:
    profile = budgets_profile()
    plan = plan_of(profile, method="greedy")
    first, *rest = plan.layers
    (entry,), *others = first.heads
    for broken in (
        plan.model_copy(update={"layers": rest}),
        plan.model_copy(update={"layers": [first.model_copy(update={"heads": others}), *rest]}),
        *(
            plan.model_copy(
                update={"layers": [first.model_copy(update={"heads": [bad, *others]}), *rest]}
            )
            for bad in (
                [entry.model_copy(update={"device": 99})],
                [entry.model_copy(update={"share": 0.5})],
                [entry.model_copy(update={"share": 0.5})] * 2,
            )
        ),
    ):
        with pytest.raises(HplbError, match=r"placement\.current_plan"):
            plan_of(profile, placement={"current_plan": broken})
