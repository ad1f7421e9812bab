"""Devices filled by subset sums: as full as brute force can, and with the counts there must be."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from solver.heuristics.greedy import greedy
from solver.heuristics.subset_sums import MOST_UNFILLED, OFFERED, subset_sums
from solver.problem import LayerProblem
from tests.solver.problems import brute_force, make_layer
from tests.solver.test_bounds import layer_of

TRIES = 12


@given(st.lists(st.integers(1, 60), min_size=2, max_size=9), st.booleans())
def test_two_devices_are_filled_as_evenly_as_brute_force(
    costs: list[int], equal_counts: bool
) -> None:
    """Within the optimum, the fullest device leaves the other no more than that."""
    layer = layer_of([float(cost) for cost in costs], 2, equal_counts=equal_counts)
    optimum = brute_force(layer)
    random = np.random.default_rng(0)
    tries = [subset_sums(layer, optimum, random) for _ in range(TRIES)]
    assert min(map(layer.makespan, tries)) == optimum


@given(
    st.integers(2, 8),
    st.integers(2, 40),
    st.booleans(),
    st.sampled_from([0.0, 0.4]),
    st.floats(0.95, 1.3),
    st.integers(0, 10_000),
)
@example(devices=4, items=2, equal_counts=True, charge=0.0, part=1.25, seed=141)
def test_every_item_is_placed_and_equal_counts_are_kept(
    devices: int, items: int, equal_counts: bool, charge: float, part: float, seed: int
) -> None:
    layer = make_layer(items, 1, devices, seed=seed, equal_counts=equal_counts, charge=charge)
    goal = part * layer.makespan(greedy(layer))
    found = subset_sums(layer, goal, np.random.default_rng(seed))
    assert ((found >= 0) & (found < devices)).all()
    assert layer.allows(found)


def test_a_placement_without_a_gap_is_found() -> None:
    """Triples of one sum, mixed up: bin packing's hard kind, which the longest first misses."""
    random = np.random.default_rng(5)
    triples = [(a, b, 300 - a - b) for a, b in random.integers(60, 140, (6, 2)).tolist()]
    layer = layer_of([float(x) for triple in triples for x in triple], 6)
    assert len(layer.item_s[0]) <= OFFERED
    assert layer.makespan(greedy(layer)) > 300
    tries = [subset_sums(layer, 300.0, random) for _ in range(200)]
    assert min(map(layer.makespan, tries)) == 300


def test_all_but_the_last_few_devices_stay_within() -> None:
    random = np.random.default_rng(1)
    layer: LayerProblem = make_layer(64, 1, 8, seed=3, charge=0.0)
    goal = float(layer.loads(greedy(layer)).mean())
    for _ in range(TRIES):
        loads = layer.loads(subset_sums(layer, goal, random))[0]
        assert (loads > goal * (1 + 1e-9)).sum() <= MOST_UNFILLED
