"""Plans for engines whose ranks hold the same number of KV slots, and for those that copy K/V."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiles.model import ModelProfile
from solver.planning.slots import CONTEXTS, WORTH
from solver.plans import Plan, PlanError, content_id
from solver.report.comparison import METHODS, comparison_requests
from solver.request import PlanRequest, RequestError
from solver.verifier import verify
from tests.solver.profiles import answer, budgets_profile, faults, plan_of, stated_budgets

HEAVY = np.array([[131_072.0] * 4 + [128.0] * 12])
"""The first of four KV groups attends to everything, the others to next to nothing."""


def groups_held(plan: Plan) -> list[list[int]]:
    """KV groups of every device in every layer, `[layers][devices]`."""
    shape = plan.architecture
    present = (plan.shares > 0).reshape(shape.layers, shape.kv_heads, -1, len(plan.devices))
    return [[int(n) for n in layer] for layer in present.any(axis=2).sum(axis=1)]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    shape=st.sampled_from([(2, 4), (4, 2), (3, 3), (6, 1)]),
    seed=st.integers(0, 1000),
    more=st.integers(0, 2),
    devices=st.sampled_from([["h200:2"], ["h200:3"], ["h200:8"], ["h100:2", "a100:1"]]),
    rules=st.sampled_from(
        [{}, {"divisible": True}, {"divisible": True, "max_copies": 2}, {"unit": "kv_group"}]
    ),
    phase=st.sampled_from(["prefill", "decode"]),
    memory=st.sampled_from([None, {}]),
)
def test_any_plan_keeps_to_its_slots_and_passes_the_verifier(
    shape: tuple[int, int],
    seed: int,
    more: int,
    devices: list[str],
    rules: dict[str, Any],
    phase: str,
    memory: dict[str, Any] | None,
) -> None:
    groups, size = shape
    kinds = [{"type": d.split(":")[0], "count": int(d.split(":")[1])} for d in devices]
    count = sum(int(kind["count"]) for kind in kinds)
    slots = min(-(-groups // count) + more, groups)
    profile = budgets_profile(layers=2, heads=groups * size, kv_heads=groups, seed=seed)
    asked = {"devices": kinds, "phase": phase, "batch_size": 2, "time_limit_s": 0.3}
    placement = {**rules, "slots": slots, "memory": memory}
    plan = plan_of(profile, **asked, placement=placement)
    assert faults(plan) == []
    assert plan.slots == slots
    assert plan.stock_compatible
    assert max(map(max, groups_held(plan))) <= slots
    assert len(set(plan.kv_bytes)) == 1
    for method in ("contiguous", "greedy", "snake", "greedy_equal"):
        other = plan_of(profile, **asked, placement={"slots": slots}, method=method)
        assert faults(other) == []
        if "unit" not in rules:
            assert plan.makespan_s <= other.makespan_s * (1 + 1e-9)


def test_as_many_groups_as_slots_leave_no_freedom_and_that_is_proved() -> None:
    plan = plan_of(budgets_profile(layers=2, heads=16, kv_heads=4), placement={"slots": 1})
    assert plan.status == "optimal"
    assert groups_held(plan) == [[1, 1, 1, 1]] * 2
    assert plan.padding is not None
    assert plan.padding.padded == 0
    assert plan.padding.kv_share == 1.0
    assert plan.padding.padding_s == 0.0
    assert verify(plan).unproved == []


def test_one_slot_more_divides_what_one_group_has_and_costs_half_of_the_tokens() -> None:
    contexts = {"context_tokens": 131_072, "time_limit_s": 20}
    heavy = stated_budgets(HEAVY, 4)
    least, more = (
        plan_of(heavy, **contexts, placement={"slots": n, "divisible": True}) for n in (1, 2)
    )
    assert more.makespan_s < 0.5 * least.makespan_s
    assert more.padding is not None
    assert more.padding.kv_share == 0.5
    assert more.padding.padding_s > 0
    assert [other.slots for other in more.padding.others] == [1]
    assert more.kv_bytes == [2 * held for held in least.kv_bytes]
    chosen = plan_of(heavy, **contexts, placement={"slots": "auto", "divisible": True})
    assert chosen.slots == 2
    pays_from = chosen.padding and chosen.padding.pays_from_tokens
    assert pays_from is not None
    assert _saved(heavy, pays_from) >= WORTH
    assert pays_from == CONTEXTS[0] or _saved(heavy, pays_from // 2) < WORTH


def _saved(profile: ModelProfile, context: int) -> float:
    """What two slots save of the makespan with one."""
    one, two = (
        plan_of(
            profile,
            context_tokens=context,
            time_limit_s=20,
            placement={"slots": slots, "divisible": True},
        )
        for slots in (1, 2)
    )
    return 1 - two.makespan_s / one.makespan_s


def test_a_slot_that_costs_more_than_it_saves_is_not_chosen_and_said_to_lose() -> None:
    profile = budgets_profile(layers=1, heads=8, kv_heads=4, uniform=True)
    asked = {"divisible": True}
    assert plan_of(profile, placement={"slots": "auto", **asked}).slots == 1
    two = plan_of(profile, placement={"slots": 2, **asked})
    assert any("2 do not pay" in warning for warning in two.warnings)


def test_every_device_pays_for_its_slots_whatever_it_holds() -> None:
    profile = budgets_profile(layers=1, heads=4, kv_heads=2, seed=3)
    one, two = (plan_of(profile, gpus=2, placement={"slots": n}) for n in (1, 2))
    assert one.costs.head_s == two.costs.head_s
    assert one.costs.group_s == two.costs.group_s
    assert two.costs.launch_s[0] > one.costs.launch_s[0]
    idle = plan_of(profile, gpus=4, placement={"slots": 1, "unit": "kv_group"}, method="contiguous")
    assert min(min(layer.loads_s) for layer in idle.layers) > 0


def test_head_counts_that_do_not_divide_are_padded() -> None:
    """Nine heads of three groups on two devices: two groups and one."""
    profile = budgets_profile(layers=1, heads=9, kv_heads=3, uniform=True)
    contiguous = plan_of(profile, gpus=2, placement={"slots": 2}, method="contiguous")
    assert groups_held(contiguous) == [[2, 1]]
    divided = plan_of(profile, gpus=2, placement={"slots": 2, "divisible": True})
    loads = divided.layers[0].loads_s
    assert max(loads) < 1.02 * min(loads)
    assert divided.makespan_s < contiguous.makespan_s


@pytest.mark.parametrize(
    ("placement", "field"),
    [
        ({"slots": 0}, "placement.slots: 0"),
        ({"slots": "some"}, "placement.slots: 'some'"),
        ({"slots": 2, "equal_counts": True}, "placement.slots"),
        ({"slots": 2, "copies": "free"}, "placement.slots"),
        ({"slots": 2, "memory": {"kv_retention": "budget"}}, "placement.slots"),
        ({"slots": 2, "divisible": True, "node_size": 2}, "placement.slots"),
    ],
)
def test_what_does_not_go_with_slots_is_refused(placement: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestError, match=field):
        PlanRequest.checked(profile="x", gpus=4, context_tokens=64, placement=placement)


def test_slots_project_where_heads_are() -> None:
    asked: dict[str, Any] = {"profile": "x", "gpus": 4, "context_tokens": 64}
    request = PlanRequest.checked(**asked, placement={"slots": 2})
    assert request.deployment == "tensor_parallel"
    with pytest.raises(RequestError, match=r"placement\.slots"):
        PlanRequest.checked(**asked, placement={"slots": 2}, deployment="disaggregated")


def test_methods_are_compared_in_the_same_slots() -> None:
    asked = {"slots": 2, "context_tokens": 1024}
    for request in comparison_requests(budgets_profile(), [2], None, METHODS, **asked):
        assert request.deployment == "tensor_parallel"
        assert request.placement.slots == 2


@pytest.mark.parametrize("slots", [1, 5])
def test_slots_that_cannot_hold_the_groups_or_exceed_them_are_refused(slots: int) -> None:
    request = PlanRequest.checked(
        profile=budgets_profile(), gpus=2, context_tokens=1024, placement={"slots": slots}
    )
    with pytest.raises(RequestError, match="must be from 2 to 4"):
        answer(request)


def test_a_plan_that_lies_about_its_slots_is_found_out() -> None:
    profile = budgets_profile(layers=1, heads=8, kv_heads=4, seed=1)
    plan = plan_of(profile, gpus=2, placement={"slots": 3, "divisible": True})
    told = json.loads(plan.model_dump_json())
    fewer = max(map(max, groups_held(plan))) - 1
    for changes in (
        {"slots": fewer},
        {"slots": None},
        {"padding": {**told["padding"], "padded": told["padding"]["padded"] + 1}},
        {"padding": {**told["padding"], "kv_share": 1.0}},
        {"kv_bytes": [held // 2 for held in told["kv_bytes"]]},
        {"stock_compatible": False},
    ):
        lie = {**told, **changes}
        lie["id"] = content_id(lie)
        assert verify(lie, time_limit_s=0).faults, changes


def test_plans_without_slots_say_nothing_of_them() -> None:
    written = json.loads(plan_of(budgets_profile()).model_dump_json())
    assert "slots" not in written
    assert "padding" not in written
    with pytest.raises(PlanError, match="slots"):
        Plan.parse(json.dumps({**written, "slots": 0}), "here")


@pytest.mark.parametrize("equal_counts", [False, True])
def test_fewer_kv_heads_than_devices_are_copied_as_engines_copy_them(equal_counts: bool) -> None:
    """Four KV groups of four heads on eight devices: two heads of one group on each."""
    rules = {"unit": "kv_group", "equal_counts": equal_counts}
    profile = budgets_profile(layers=2, heads=16, kv_heads=4, seed=6)
    plan = plan_of(profile, gpus=8, placement=rules)
    stock = plan_of(profile, gpus=8, placement=rules, method="contiguous")
    for each in (plan, stock):
        assert faults(each) == []
        assert each.stock_compatible
        assert groups_held(each) == [[1] * 8] * 2
        assert each.kv_copies == [4, 4]
        assert not any("idle" in warning for warning in each.warnings)
    assert stock.shares.argmax(axis=2).tolist() == [list(np.repeat(np.arange(8), 2))] * 2
    assert plan.makespan_s < stock.makespan_s
    assert plan.makespan_s == pytest.approx(_best_halves(plan), rel=2e-3)
    assert verify(plan).unproved == []


@pytest.mark.parametrize("name", ["plan_before_copies", "plan_before_copies_contiguous"])
def test_a_plan_of_before_copies_were_counted_verifies(name: str) -> None:
    """One by KV group leaves two of four devices idle, the other's copies were not stock then."""
    file = Path(__file__).with_name(f"{name}.json")
    written = json.loads(file.read_text())
    assert not written["stock_compatible"]
    verdict = verify(written)
    assert (verdict.faults, verdict.unproved) == ([], [])
    if written["rules"]["unit"] == "kv_group":
        assert groups_held(Plan.load(file)) == [[1, 1, 0, 0]]
        # What has no copies is not stock, and a group has all its heads on one device.
        for change, fault in (
            ({"stock_compatible": True}, "stock_compatible True, found False"),
            ({"layers": _with_head(written, 7, 0)}, "groups are not copied to equal numbers"),
        ):
            changed = written | change
            assert any(
                fault in each for each in verify(changed | {"id": content_id(changed)}).faults
            )


def _with_head(plan: dict[str, Any], head: int, device: int) -> list[dict[str, Any]]:
    """The plan's one layer with a head on another device."""
    (layer,) = plan["layers"]
    heads = [*layer["heads"]]
    heads[head] = [{"device": device, "share": 1.0}]
    return [layer | {"heads": heads}]


def test_a_current_plan_of_before_copies_were_counted_is_planned_from() -> None:
    before = Plan.load(Path(__file__).with_name("plan_before_copies.json"))
    profile = budgets_profile(layers=1, heads=8, kv_heads=2)
    rules = {"unit": "kv_group", "equal_counts": True, "current_plan": before}
    moved = plan_of(profile, context_tokens=4000, placement=rules)
    assert faults(moved) == []
    assert moved.makespan_s <= before.makespan_s


def _best_halves(plan: Plan) -> float:
    """Each group's four heads in two halves that are as even as can be, by trying all."""
    total = 0.0
    head_s, group_s = np.array(plan.costs.head_s), np.array(plan.costs.group_s)
    for layer, heads in enumerate(head_s[..., 0].reshape(2, 4, 4)):
        worst = max(
            min(max(own[list(half)].sum(), own.sum() - own[list(half)].sum()) for half in halves)
            + group_s[layer, group, 0]
            for group, own in enumerate(heads)
            for halves in [list(combinations(range(4), 2))]
        )
        total += worst + plan.costs.launch_s[0]
    return total


def test_contiguous_heads_that_copy_groups_evenly_run_on_stock_engines() -> None:
    profile = budgets_profile(layers=1, heads=16, kv_heads=4)
    assert plan_of(profile, gpus=8, method="contiguous").stock_compatible
    assert not plan_of(profile, gpus=16, placement={"divisible": True}).stock_compatible
