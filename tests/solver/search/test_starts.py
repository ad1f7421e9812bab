"""Quick placements: within the tolerance nothing more is tried, and no start is ever lost."""

import time
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.deadline import Deadline
from solver.heuristics.contiguous import contiguous
from solver.heuristics.descent import descend
from solver.heuristics.greedy import charged, greedy, longest_first, room
from solver.problem import LayerProblem
from solver.request import Method
from solver.search.starts import start, within
from tests.solver.problems import layers, make_layer, soon


@settings(max_examples=60, deadline=None)
@given(layers(max_items=8))
def test_auto_starts_from_the_best_of_contiguous_and_greedy(layer: LayerProblem) -> None:
    [found] = start([layer], "auto", 1e-3, soon())
    plain = [a for a in (contiguous(layer), greedy(layer), charged(layer)) if layer.allows(a)]
    assert found.makespan_s <= min(map(layer.makespan, plain)) * (1 + 1e-12)
    assert layer.allows(found.assignment)
    assert found.makespan_s == pytest.approx(layer.makespan(found.assignment))
    assert found.bound.seconds <= found.makespan_s * (1 + 1e-12)


@settings(max_examples=60, deadline=None)
@given(layers(max_items=8), st.sampled_from(["cp_sat", "ilp"]))
def test_exact_methods_start_from_contiguous_and_greedy(
    layer: LayerProblem, method: Method
) -> None:
    [found] = start([layer], method, 1e-3, soon())
    plain = [a for a in (contiguous(layer), greedy(layer)) if layer.allows(a)]
    assert found.makespan_s <= min(map(layer.makespan, plain)) * (1 + 1e-12)
    assert layer.allows(found.assignment)


def test_within_the_tolerance_contiguous_stays() -> None:
    even = make_layer(8, 1, 4, charge=0.0)
    alike = np.ones_like(even.item_s)
    layer = LayerProblem(**{**vars(even), "item_s": alike})
    [found] = start([layer], "auto", 1e-3, soon())
    assert within([found], 1e-3)
    assert found.assignment.tolist() == contiguous(layer).tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 10_000),
)
def test_descent_never_makes_a_layer_worse_and_keeps_the_counts_of_swaps(
    layer_count: int, items: int, devices: int, swaps_only: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    item_s = rng.lognormal(0, 1, (layer_count, items, devices))
    before = rng.integers(0, devices, (layer_count, items))
    after = descend(item_s, before, soon(), swaps_only=swaps_only)

    def loads(where: np.ndarray) -> np.ndarray:
        own = np.take_along_axis(item_s, where[..., None], axis=2)[..., 0]
        return np.array([np.bincount(w, o, devices) for w, o in zip(where, own, strict=True)])

    assert (loads(after).max(axis=1) <= loads(before).max(axis=1) * (1 + 1e-9)).all()
    if swaps_only:
        for one, other in zip(before, after, strict=True):
            assert np.bincount(one, minlength=devices).tolist() == (
                np.bincount(other, minlength=devices).tolist()
            )


def test_descent_ends_where_no_exchange_helps_the_busiest_device() -> None:
    item_s = np.repeat(np.array([[[8.0], [7.0], [6.0], [5.0], [4.0]]]), 2, axis=2)
    found = descend(item_s, np.zeros((1, 5), dtype=np.int64), soon())
    assert np.bincount(found[0], item_s[0, :, 0]).max() == 15.0


def test_descent_stops_at_once_when_cancelled() -> None:
    cancelled = Event()
    cancelled.set()
    item_s = np.ones((1, 6, 2))
    before = np.zeros((1, 6), dtype=np.int64)
    stopped = descend(item_s, before, Deadline(time.monotonic() + 9, cancelled))
    assert stopped.tolist() == before.tolist()


def test_longest_first_in_many_layers_is_each_layer_alone() -> None:
    item_s = np.random.default_rng(0).lognormal(0, 1, (5, 12, 3))
    places = np.array([4, 4, 4])
    together = longest_first(item_s, places)
    alone = [longest_first(one[None], places)[0].tolist() for one in item_s]
    assert together.tolist() == alone


def test_charge_aware_greedy_gathers_where_scattering_costs_more() -> None:
    layer = make_layer(32, 4, 4, seed=1, charge=2.0)
    assert layer.makespan(charged(layer)) < layer.makespan(greedy(layer))


@pytest.mark.parametrize("equal_counts", [False, True])
def test_charge_aware_greedy_keeps_the_counts(equal_counts: bool) -> None:
    layer = make_layer(10, 2, 4, seed=1, equal_counts=equal_counts)
    assert layer.allows(charged(layer))
    assert (np.bincount(charged(layer), minlength=4) <= room(layer)).all()


def test_additive_is_without_shared_charges() -> None:
    assert make_layer(8, 1, 2, charge=1.0).additive
    assert make_layer(8, 2, 2, charge=0.0).additive
    assert not make_layer(8, 2, 2, charge=1.0).additive
    assert make_layer(8, 1, 2, workloads=2).additive  # of each workload


def test_a_report_by_the_clock_tries_no_other_start_once_its_time_is_up() -> None:
    """Whatever the size: a plan's own quick start, which repeats, tries them all."""
    several = [make_layer(24, 2, 5, seed=seed, workloads=2) for seed in range(8)]
    plain, every = (
        start(several, "auto", 0.0, soon(0), by_clock=by_clock) for by_clock in (True, False)
    )
    greedily = start(several, "greedy", 0.0, soon(0))
    for layer, first, found, better in zip(several, greedily, plain, every, strict=True):
        assert found.makespan_s <= min(layer.makespan(contiguous(layer)), first.makespan_s)
        assert better.makespan_s <= found.makespan_s
    assert sum(s.makespan_s for s in every) < 0.99 * sum(s.makespan_s for s in plain)
