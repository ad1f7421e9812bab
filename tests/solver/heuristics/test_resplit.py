"""Re-splitting pairs: exact for two devices, never worse than its start, true to the counts."""

from itertools import product
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.deadline import Deadline
from solver.heuristics.contiguous import contiguous
from solver.heuristics.exchange import exchange
from solver.heuristics.greedy import greedy
from solver.heuristics.greedy_equal import greedy_equal
from solver.heuristics.resplit import resplit_pairs
from solver.heuristics.two_devices import Pair, divide
from solver.problem import LayerProblem
from solver.shares import Ints
from tests.solver.problems import brute_force, layers, make_layer, soon


@settings(max_examples=60, deadline=None)
@given(layers(max_items=18, max_devices=5))
def test_never_worse_than_its_start_and_the_counts_are_kept(layer: LayerProblem) -> None:
    for method in (contiguous, greedy, greedy_equal):
        start = method(layer)
        before = start.copy()
        found = resplit_pairs(layer, start, 0.0, soon(), shuffles=5)
        assert (start == before).all(), "the start is the caller's"
        assert layer.makespan(found) <= layer.makespan(start)
        if layer.allows(start):
            assert layer.allows(found)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([(6, 2), (6, 3), (8, 1), (8, 8), (9, 3)]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 0.3, 4.0]),
)
def test_two_alike_devices_are_divided_best(
    seed: int, shape: tuple[int, int], equal_counts: bool, two_valued: bool, charge: float
) -> None:
    layer = make_layer(
        *shape, 2, seed=seed, charge=charge, equal_counts=equal_counts, two_valued=two_valued
    )
    found = resplit_pairs(layer, contiguous(layer), 0.0, soon(), shuffles=0)
    assert layer.makespan(found) == pytest.approx(brute_force(layer), rel=1e-8)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_one_division_of_unlike_devices_is_the_best(seed: int, counted: bool) -> None:
    random = np.random.default_rng(seed)
    charge_s, launch_s = random.uniform(0, 1, (2, 2)), random.uniform(0, 0.1, 2)
    pair = Pair(random.lognormal(0, 1, (4, 2)), charge_s, launch_s, 3 if counted else None)
    groups = (np.array([0, 1]), np.array([2, 3]))
    counts = np.array([[1, 0], [1, 1], [0, 1], [1, 1]])

    def larger(here: Ints) -> float:
        both = np.stack([here, counts.sum(axis=1) - here], axis=1)
        held = np.stack([both[g].any(axis=0) for g in groups])
        return float(((both * pair.cost_s).sum(0) + (held * charge_s).sum(0) + launch_s).max())

    every = [np.array(c) for c in product(*(range(n + 1) for n in counts.sum(axis=1)))]
    allowed = [here for here in every if pair.holding in (None, here.sum())]
    found = divide(pair, groups, counts, random)
    assert found is not None
    assert pair.holding in (None, found.sum())
    assert larger(found) == pytest.approx(min(map(larger, allowed)))


@settings(max_examples=40, deadline=None)
@given(layers(max_items=6))
def test_never_below_the_optimum(layer: LayerProblem) -> None:
    found = resplit_pairs(layer, contiguous(layer), 0.0, soon(), shuffles=5)
    assert layer.makespan(found) >= brute_force(layer) * (1 - 1e-12)


def test_it_goes_on_where_exchange_is_stuck() -> None:
    cases = [make_layer(32, 4, 4, seed=seed, charge=0.5) for seed in range(5)]
    starts = [exchange(layer, contiguous(layer), soon()) for layer in cases]
    found = [
        resplit_pairs(layer, start, 0.0, soon(), shuffles=20)
        for layer, start in zip(cases, starts, strict=True)
    ]
    before = sum(layer.makespan(start) for layer, start in zip(cases, starts, strict=True))
    after = sum(layer.makespan(end) for layer, end in zip(cases, found, strict=True))
    assert after < 0.999 * before


def test_equal_seeds_end_alike_and_many_items_in_one_group_are_no_trouble() -> None:
    layer = make_layer(64, 64, 4, seed=2)
    start = contiguous(layer)
    ends = [resplit_pairs(layer, start, 0.0, soon(), shuffles=10, seed=7) for _ in range(2)]
    assert (ends[0] == ends[1]).all()
    assert layer.makespan(ends[0]) < layer.makespan(start)


def test_what_is_enough_is_kept() -> None:
    layer = make_layer(32, 4, 4, seed=1)
    start = contiguous(layer)
    found = resplit_pairs(layer, start, layer.makespan(start), soon())
    assert (found == start).all()


def test_without_time_the_start_comes_back() -> None:
    layer = make_layer(32, 4, 4, seed=1)
    start = contiguous(layer)
    cancelled = Event()
    cancelled.set()
    for deadline in (soon(0), Deadline(soon().at, cancelled)):
        assert (resplit_pairs(layer, start, 0.0, deadline) == start).all()
