"""Moving from the current plan where it pays, and only there."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.architecture import Architecture
from profiles.catalogue import device_profile
from solver.coupling.couple import couple
from solver.coupling.moving import CurrentPlacement, MovingError, current_placement
from solver.plans import Costs, Entry, LayerPlan, Plan, ProfileRef, Rules, Step
from solver.problem import PlacementProblem
from solver.shares import Shares
from tests.solver.coupling.cases import kv_bytes, make_footprint, make_problem, quickest, solution
from tests.solver.problems import soon

CONTIGUOUS = Shares.whole(np.array([0, 0, 1, 1]), 2)
PAIRED = Shares.whole(np.array([0, 1, 1, 0]), 2)
SWAPPED = np.array([1, 0])


def skewed(layers: int = 1, **rules: object) -> PlacementProblem:
    """Heads of 5, 4, 1 and 1 seconds in two groups: contiguous takes 9, paired 6."""
    problem = make_problem(layers, 4, 2, (0, 0), charge=0.0, **rules)
    head_s = np.broadcast_to(np.array([5.0, 4.0, 1.0, 1.0])[:, None], problem.head_s.shape)
    problem.head_s[:] = head_s
    problem.launch_s[:] = 0
    return problem


def current(*shares: Shares, steps: int = 1, link: float = 128.0) -> CurrentPlacement:
    """By default a K/V copy of 128 bytes takes a second."""
    return CurrentPlacement(shares, np.full(shares[0].devices, link), steps, "now")


def settle(problem: PlacementProblem, now: CurrentPlacement, limits: np.ndarray | None = None):
    solved = [solution(problem, i, PAIRED) for i in range(problem.layers)]
    footprint = make_footprint(problem)
    return couple(problem, solved, quickest, footprint, limits, now, soon())


def test_a_large_gain_moves() -> None:
    coupled = settle(skewed(), current(CONTIGUOUS, link=128))
    # Both devices fetch a group: one second; the step gains 3.
    assert (coupled.moved_bytes, coupled.moving_s, coupled.kept) == (256, 1.0, False)
    assert coupled.layers[0].makespan_s == 6


def test_a_small_gain_keeps_what_is_there() -> None:
    coupled = settle(skewed(), current(CONTIGUOUS, link=128 / 4))
    assert (coupled.moved_bytes, coupled.moving_s, coupled.kept) == (0, 0.0, True)
    assert coupled.layers[0].makespan_s == 9
    assert coupled.layers[0].shares.equals(CONTIGUOUS)


def test_more_steps_pay_for_the_same_move() -> None:
    coupled = settle(skewed(), current(CONTIGUOUS, link=128 / 4, steps=2))
    assert not coupled.kept


def test_weights_are_fetched_too() -> None:
    problem = skewed()
    footprint = make_footprint(problem, deployment="tensor_parallel")
    solved = [solution(problem, 0, PAIRED)]
    now = current(CONTIGUOUS, steps=100)
    coupled = couple(problem, solved, quickest, footprint, None, now, soon())
    # Each device fetches a group's K/V and projections and one head's projections.
    assert coupled.moved_bytes == 2 * (128 + 2 * 8)


def test_identical_devices_are_relabelled_before_anything_moves() -> None:
    problem = skewed()
    now = current(PAIRED.dealt(SWAPPED))
    coupled = settle(problem, now)
    assert coupled.moved_bytes == 0
    assert coupled.layers[0].shares.equals(PAIRED.dealt(SWAPPED))


def test_only_the_layers_that_gain_move() -> None:
    problem = skewed(2)
    problem.head_s[:, 1] = np.array([2.0, 2.0, 2.0, 1.9])[:, None]  # paired gains nothing
    coupled = settle(problem, current(CONTIGUOUS, CONTIGUOUS, link=128))
    assert coupled.layers[0].shares.equals(PAIRED)
    assert coupled.layers[1].shares.equals(CONTIGUOUS)
    assert (coupled.moved_bytes, coupled.kept) == (256, False)


def test_what_breaks_the_rules_cannot_stay() -> None:
    now = Shares.whole(np.array([0, 0, 0, 1]), 2)
    coupled = settle(skewed(equal_counts=True), current(now, link=1e-3))
    assert (coupled.layers[0].shares.amounts() == 2).all()
    free = settle(skewed(), current(now, link=1e-3))
    assert free.kept


def test_a_split_group_cannot_stay_where_groups_are_whole() -> None:
    problem = skewed(unit="kv_group")
    groups = Shares.whole(np.array([0, 1]), 2)
    solved = [solution(problem, 0, groups)]
    footprint = make_footprint(problem)
    coupled = couple(problem, solved, quickest, footprint, None, current(PAIRED, link=1e-3), soon())
    assert coupled.layers[0].shares.equals(groups)


def test_what_does_not_fit_cannot_stay() -> None:
    problem = skewed(2)
    solved = [solution(problem, i, CONTIGUOUS) for i in range(2)]
    footprint = make_footprint(problem)
    unit = 32 * footprint.token_bytes
    now = current(PAIRED, PAIRED, link=1e-3)
    coupled = couple(problem, solved, quickest, footprint, np.full(2, 2 * unit), now, soon())
    assert kv_bytes(problem, footprint, coupled.layers).tolist() == [2 * unit, 2 * unit]
    assert coupled.moved_bytes == 0
    three = couple(problem, solved, quickest, footprint, np.full(2, 3 * unit), now, soon())
    assert sorted(layer.makespan_s for layer in three.layers) == [6, 9]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 10, 100]), st.sampled_from([1.0, 30.0, 1000.0]))
def test_it_is_never_worse_than_both_extremes_and_near_the_best(
    seed: int, steps: int, link: float
) -> None:
    problem = make_problem(5, 4, 2, (0, 0, 0), seed=seed)
    footprint = make_footprint(problem)
    rng = np.random.default_rng(seed)
    now = [Shares.whole(of_layer, 3) for of_layer in rng.integers(0, 3, (5, 4))]
    solved = quickest(problem)
    place = current(*now, steps=steps, link=link)
    new = couple(problem, solved, quickest, footprint, None, current(*now, steps=10**9), soon())
    found = couple(problem, solved, quickest, footprint, None, place, soon())

    def cost_s(moves: tuple[bool, ...]) -> float:
        fetch_s, makespan_s = np.zeros(3), 0.0
        for index, moving in enumerate(moves):
            shares = new.layers[index].shares if moving else now[index]
            makespan_s += solution(problem, index, shares).makespan_s
            wanted, there = footprint.holdings(index, shares), footprint.holdings(index, now[index])
            fetch_s += np.maximum(wanted - there, 0).sum(axis=1) / link
        return steps * makespan_s + fetch_s.max()

    reached_s = steps * sum(s.makespan_s for s in found.layers) + found.moving_s
    costs_s = {moves: cost_s(moves) for moves in product([False, True], repeat=5)}
    assert reached_s <= min(costs_s[(True,) * 5], costs_s[(False,) * 5]) * (1 + 1e-9)
    assert reached_s <= 1.02 * min(costs_s.values())


def make_plan_of(architecture: Architecture, devices: list[str]) -> Plan:
    """A plan with head h on device h modulo the devices, and the last head halved."""
    heads = [[Entry(device=h % len(devices))] for h in range(architecture.query_heads)]
    heads[-1] = [Entry(device=1, share=0.5), Entry(device=0, share=0.5)]
    layer = LayerPlan(
        makespan_s=1, lower_bound_s=1, bound="none", loads_s=[1.0] * len(devices), heads=heads
    )
    return Plan(
        id="abc",
        status="feasible",
        solver="auto",
        makespan_s=1,
        lower_bound_s=1,
        gap=0,
        tolerance=0,
        bubble_ratio=0,
        imbalance=1,
        stock_compatible=False,
        stock_reason="",
        kv_copies=[],
        kv_bytes=[],
        budgets=[],
        warnings=[],
        layers=[layer] * architecture.layers,
        profile=ProfileRef(name="p", digest="d", source="s", synthetic=True),
        architecture=architecture,
        workload=Step(
            context_tokens=32,
            phase="prefill",
            batch_size=1,
            deployment="disaggregated",
            block_tokens=4,
        ),
        rules=Rules(unit="head", equal_counts=False),
        devices=devices,
        device_types=sorted(set(devices)),
        cost_model={},
        costs=Costs(head_s=[], group_s=[], launch_s=[]),
    )


SHAPE = Architecture(layers=2, query_heads=4, kv_heads=2, head_dim=1, hidden_size=2)


def test_a_plan_says_where_everything_is() -> None:
    plan = make_plan_of(SHAPE, ["h200", "a100"])
    place = current_placement(plan, SHAPE, ["h200", "a100"], 7)
    assert place.shares[1].dense.tolist() == [[1, 0], [0, 1], [1, 0], [0.5, 0.5]]
    links = [device_profile(name).link_bandwidth for name in ("h200", "a100")]
    assert place.link_bytes_per_s.tolist() == links
    assert (place.amortise_steps, place.plan_id) == (7, "abc")


def test_a_plan_for_another_model_or_other_devices_is_refused() -> None:
    plan = make_plan_of(SHAPE, ["h200", "a100"])
    with pytest.raises(MovingError, match="kv_heads is 2, the request's 4"):
        current_placement(plan, SHAPE.model_copy(update={"kv_heads": 4}), plan.devices, 1)
    with pytest.raises(MovingError, match="1 h200, 1 a100, the request's 2 h200"):
        current_placement(plan, SHAPE, ["h200", "h200"], 1)
    with pytest.raises(MovingError, match=r"\(1, 4, 2\), the request has \(2, 4, 2\)"):
        settle(skewed(2), current(CONTIGUOUS))
