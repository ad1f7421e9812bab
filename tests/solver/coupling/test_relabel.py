"""Dealing columns out anew, against every permutation of small cases."""

from itertools import permutations, product
from threading import Event

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.coupling.relabel import Columns, relabel
from solver.deadline import Deadline
from tests.solver.problems import soon


def make_columns(
    seed: int, layers: int, devices: int, slack: float | None, *, fetched: bool, types: int = 1
) -> Columns:
    """Whole numbers of bytes; limits `slack` over the mean; devices in `types` classes."""
    rng = np.random.default_rng(seed)
    held = rng.integers(0, 10, (layers, devices)).astype(float)
    limits = None if slack is None else np.full(devices, np.ceil(held.sum() / devices * slack))
    lacking = rng.integers(0, 10, (layers, devices, devices)).astype(float) if fetched else None
    classes = [np.array(c) for c in np.array_split(np.arange(devices), types)]
    return Columns(classes, held, lacking, limits)


def every_order(columns: Columns) -> list[np.ndarray]:
    """Every way to deal within the classes."""
    per_layer = [np.concatenate(p) for p in product(*(permutations(c) for c in columns.classes))]
    return [np.array(o) for o in product(per_layer, repeat=len(columns.held))]


def start(columns: Columns) -> np.ndarray:
    layers, devices = columns.held.shape
    return np.tile(np.arange(devices), (layers, 1))


@given(
    st.integers(0, 10_000),
    st.integers(1, 6),
    st.integers(1, 5),
    st.sampled_from([None, 1.0, 1.2]),
    st.booleans(),
    st.sampled_from([1, 2]),
)
def test_it_permutes_within_classes_and_never_gets_worse(
    seed: int, layers: int, devices: int, slack: float | None, fetched: bool, types: int
) -> None:
    columns = make_columns(seed, layers, devices, slack, fetched=fetched, types=types)
    order = relabel(columns, soon())
    for taken in order:
        for devices_alike in columns.classes:
            assert sorted(taken[devices_alike]) == sorted(devices_alike)
    assert columns.value(order) <= columns.value(start(columns))


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 5))
def test_the_largest_total_never_rises(seed: int, layers: int, devices: int) -> None:
    columns = make_columns(seed, layers, devices, 1.0, fetched=False)
    order = relabel(columns, soon())
    assert columns.totals(order).max() <= columns.totals(start(columns)).max()


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([(2, 3), (3, 3), (5, 2)]))
def test_memory_is_nearly_as_even_as_can_be(seed: int, shape: tuple[int, int]) -> None:
    columns = make_columns(seed, *shape, 1.0, fetched=False)
    least = min(columns.totals(order).max() for order in every_order(columns))
    assert columns.totals(relabel(columns, soon())).max() <= max(1.15 * least, least + 1)


def test_it_finds_most_fits_there_are_and_few_bytes_to_fetch() -> None:
    fits = possible = 0
    ratios = []
    for seed in range(40):
        columns = make_columns(seed, 3, 3, 1.1, fetched=True)
        best = min(columns.value(order) for order in every_order(columns))
        found = columns.value(relabel(columns, soon()))
        possible += best[0] == 0
        fits += found[0] == 0
        if best[0] == 0 and found[0] == 0:
            ratios.append((found[2] + 1) / (best[2] + 1))
    assert possible > 30
    assert fits >= 0.95 * possible
    assert np.mean(ratios) < 1.1


def test_without_limits_the_fewest_bytes_are_fetched_exactly() -> None:
    for seed in range(20):
        columns = make_columns(seed, 2, 4, None, fetched=True)
        least = min(columns.value(order)[2] for order in every_order(columns))
        assert columns.value(relabel(columns, soon()))[2] == least


def test_unlike_limits_within_a_class_get_unlike_columns() -> None:
    held = np.array([[1.0, 9.0], [2.0, 8.0]])
    columns = Columns([np.arange(2)], held, None, np.array([17.0, 3.0]))
    assert columns.totals(relabel(columns, soon())).tolist() == [17, 3]


def test_cancelled_it_leaves_everything_as_it_is() -> None:
    cancelled = Event()
    cancelled.set()
    columns = make_columns(0, 3, 3, 1.0, fetched=True)
    assert (relabel(columns, Deadline(np.inf, cancelled)) == start(columns)).all()
