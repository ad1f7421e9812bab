"""From a request to a verified plan, for every method and rule."""

import json
from threading import Event

import numpy as np
import pytest

from profiles.catalogue import catalogue_rates
from profiles.cost.rates import Rates
from profiles.cost.work import INDEX
from profiles.model import ModelProfile
from solver.planning import planner
from solver.planning.costs import CostError
from solver.planning.planner import make_plan
from solver.planning.predict import planned_problem, predicted_loads, shard_work
from solver.plans import Plan, PlanError, content_id
from solver.request import PlanRequest
from tests.solver.profiles import budgets_profile, faults, plan_of

METHODS = ["contiguous", "snake", "greedy", "greedy_equal", "cp_sat", "ilp", "auto"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("deployment", ["disaggregated", "tensor_parallel"])
@pytest.mark.parametrize("gpus", [1, 3, 4, 16])
def test_every_method_makes_a_plan_the_verifier_accepts(
    method: str, deployment: str, gpus: int
) -> None:
    plan = plan_of(budgets_profile(), method=method, deployment=deployment, gpus=gpus)
    assert faults(plan) == []
    assert plan.solver == method


@pytest.mark.parametrize("unit", ["head", "kv_group"])
@pytest.mark.parametrize("equal_counts", [False, True])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_every_rule(unit: str, equal_counts: bool, phase: str) -> None:
    rules = {"unit": unit, "equal_counts": equal_counts}
    plan = plan_of(budgets_profile(), placement=rules, gpus=3, phase=phase, batch_size=4)
    assert faults(plan) == []
    if unit == "kv_group":
        assert plan.kv_copies == [0, 0, 0]


def test_unlike_devices() -> None:
    plan = plan_of(
        budgets_profile(heads=32, kv_heads=8),
        devices=[{"type": "h100", "count": 2}, {"type": "a100", "count": 2}],
    )
    assert faults(plan) == []
    assert plan.imbalance is None
    assert plan.devices == ["h100", "h100", "a100", "a100"]
    loads = [sum(layer.loads_s[d] for layer in plan.layers) for d in range(4)]
    heads_on = [
        sum(entry[0].device == d for layer in plan.layers for entry in layer.heads)
        for d in range(4)
    ]
    assert min(heads_on[:2]) > max(heads_on[2:]), (heads_on, loads)


def test_auto_keeps_groups_whole_where_scattering_costs_more() -> None:
    plan = plan_of(budgets_profile(heads=32, kv_heads=8), deployment="tensor_parallel")
    scattered = plan_of(
        budgets_profile(heads=32, kv_heads=8), deployment="tensor_parallel", method="greedy"
    )
    assert plan.makespan_s <= scattered.makespan_s
    assert sum(plan.kv_copies) < sum(scattered.kv_copies)


def test_more_gpus_than_heads_is_allowed_with_a_warning() -> None:
    plan = plan_of(budgets_profile(), gpus=20)
    assert any("12 of them are idle" in warning for warning in plan.warnings)
    assert sum(load == 0 for load in plan.layers[0].loads_s) == 12


def test_with_nothing_to_gain_the_plan_says_so() -> None:
    plan = plan_of(budgets_profile(uniform=True))
    assert any("nothing to gain" in warning for warning in plan.warnings)
    assert plan.status == "optimal"
    assert plan.stock_compatible


def test_the_binding_rule_is_named_with_what_relaxing_it_buys() -> None:
    plan = plan_of(budgets_profile(seed=3), placement={"unit": "kv_group"})
    assert any("unit kv_group binds" in warning for warning in plan.warnings)


def test_the_id_is_the_content_without_timings() -> None:
    profile = budgets_profile()
    first, second = (plan_of(profile, method="greedy") for _ in range(2))
    assert first.id == second.id
    assert first.created_at != second.created_at
    assert first.id != plan_of(profile, method="snake").id
    assert content_id(json.loads(first.model_dump_json())) == first.id


def test_a_plan_survives_its_json() -> None:
    plan = plan_of(budgets_profile())
    assert Plan.parse(plan.model_dump_json(), "here") == plan


@pytest.mark.parametrize("text", ["", "{", '{"id": "x"}', "[]"])
def test_a_broken_plan_is_refused_by_name(text: str) -> None:
    with pytest.raises(PlanError, match=r"plan\.json"):
        Plan.parse(text, "plan.json")


def test_predicting_again_under_the_same_rates_gives_the_same_loads() -> None:
    plan = plan_of(budgets_profile(), gpus=3)
    loads = predicted_loads(plan, catalogue_rates(["h200"], "prefill"))
    for layer, again in zip(plan.layers, loads, strict=True):
        assert layer.loads_s == pytest.approx(again.tolist())
    assert planned_problem(plan).head_s[0].tolist() == plan.costs.head_s


def test_rates_that_make_a_head_free_are_refused() -> None:
    zero = catalogue_rates(["h200"], "prefill")["h200"]
    nothing = Rates(
        device="h200",
        phase="prefill",
        seconds_per=dict.fromkeys(zero.seconds_per, 0.0),
        source="test",
    )
    request = PlanRequest(profile=budgets_profile(), gpus=2, context_tokens=1024)
    with pytest.raises(CostError, match="layer 0, head 0"):
        make_plan(request, [{"h200": nothing}])


def test_roofline_and_extrapolated_rates_are_warned_of() -> None:
    assert any("roofline" in w for w in plan_of(budgets_profile(), device_type="a100").warnings)


def test_one_token_of_context() -> None:
    plan = plan_of(budgets_profile(), context_tokens=1)
    assert faults(plan) == []
    assert plan.budgets == [[1] * 8] * 3


def test_profiles_are_not_changed_by_planning() -> None:
    profile: ModelProfile = budgets_profile()
    before = profile.digest
    plan_of(profile)
    assert profile.digest == before


def test_cancelling_gives_the_best_plan_so_far() -> None:
    cancel = Event()
    cancel.set()
    profile = budgets_profile(layers=6, heads=32, kv_heads=8)
    request = PlanRequest(profile=profile, gpus=4, context_tokens=8192, tolerance=0)
    plan = make_plan(request, [catalogue_rates(["h200"], "prefill")], cancel=cancel)
    assert faults(plan) == []
    assert plan.status == "feasible"
    assert plan.reason is not None
    assert plan.reason.startswith("cancelled: the best so far")


def test_nothing_is_placed_anew_once_a_worst_case_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    placed: list[object] = []
    monkeypatch.setattr(planner, "start", lambda *asked: placed.append(asked))
    cancel = Event()
    cancel.set()
    steps = [{"context_tokens": 8192}, {"context_tokens": 2048}]
    request = PlanRequest.checked(
        profile=budgets_profile(layers=6, heads=32, kv_heads=8),
        gpus=4,
        workloads=steps,
        objective="worst",
        placement={"divisible": True},
    )
    plan = make_plan(request, [catalogue_rates(["h200"], "prefill")] * 2, cancel=cancel)
    assert faults(plan) == []
    assert not placed


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_layers_with_windows_cost_their_windows(phase: str) -> None:
    """They choose nothing, whatever the selection, and cost as much at any context."""
    plain = budgets_profile(layers=2)
    windows = {"windows": (None, 128)}
    architecture = plain.architecture.model_copy(update=windows)
    hybrid = plain.model_copy(update={"architecture": architecture})
    options = {"phase": phase, "deployment": "disaggregated"}
    short, long = (plan_of(hybrid, context_tokens=n, **options) for n in (8192, 65536))
    dense = plan_of(plain, context_tokens=8192, **options)
    assert faults(long) == []
    assert np.max(short.budgets[1]) == np.max(long.budgets[1]) == 128
    assert dense.budgets[0] == short.budgets[0]
    scored = INDEX["scored_blocks"]
    assert not shard_work(long, 1)[:, scored].any()
    assert shard_work(long, 0)[:, scored].any()
    of_window, of_context = (
        plan_of(p, context_tokens=8192, placement={"memory": {}}, **options)
        for p in (hybrid, plain)
    )
    assert faults(of_window) == []
    row = 2 * architecture.head_dim * architecture.item_bytes
    for plan, reaches in ((of_window, [8192, 128]), (of_context, [8192, 8192])):
        pairs = np.array(plan.kv_copies) + architecture.kv_heads
        assert sum(plan.memory.kv_bytes) == row * pairs @ reaches
    heads_s = [np.array(plan.costs.head_s)[1] for plan in (short, long)]
    if phase == "decode":
        assert heads_s[0] == pytest.approx(heads_s[1])
    else:
        assert heads_s[1] == pytest.approx(8 * heads_s[0], rel=0.02)
