"""Divided placements: never worse than whole ones, never below their bound, rules kept."""

import time
from threading import Event
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from solver.deadline import Deadline
from solver.divide.divide import divide
from solver.divide.integer_program import Searched
from solver.divide.retreat import retreat
from solver.problem import LayerProblem, PlacementProblem
from solver.search.solve import Search, solve
from solver.shares import Shares
from solver.solution import Bound
from tests.solver.divide.problems import (
    check,
    divisible_layers,
    make_divisible,
    reached_s,
)
from tests.solver.problems import soon

TOLERANCE = 1e-3
NOTHING = Bound(0.0, "nothing known")


def random_whole(layer: LayerProblem, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, layer.devices, layer.items)


@settings(max_examples=40, deadline=None)
@given(divisible_layers())
def test_never_worse_than_whole_and_never_below_the_bound(layer: LayerProblem) -> None:
    whole = random_whole(layer)
    solution = divide(layer, whole, NOTHING, TOLERANCE, soon(0.2))
    check(layer, solution.shares)
    assert solution.makespan_s <= layer.makespan(whole) * (1 + 1e-12)
    assert solution.makespan_s == pytest.approx(reached_s(layer, solution.shares))
    assert 0 < solution.bound.seconds <= solution.makespan_s


@pytest.mark.parametrize("workloads", [1, 2])
@pytest.mark.parametrize("types", [1, 3])
def test_it_gains_on_every_kind_of_layer(workloads: int, types: int) -> None:
    layer = make_divisible(16, 4, 4, workloads=workloads, types=types, charge=0.05, part=0.01)
    whole = layer.item_s[0].argmin(axis=1)
    solution = divide(layer, whole, NOTHING, TOLERANCE, soon(4))
    assert solution.gap < 0.1
    assert solution.makespan_s < 0.8 * layer.makespan(whole)


def test_whole_stays_where_dividing_gains_too_little() -> None:
    layer = make_divisible(4, 1, 2, charge=0.0, launch=0.0)
    layer.item_s[0] = np.array([1.0, 1.0, 1.0, 1.0005])[:, None]
    whole = np.array([0, 0, 1, 1])
    solution = divide(layer, whole, NOTHING, TOLERANCE, soon())
    assert solution.shares.equals(layer.whole(whole))


def test_a_cancelled_search_returns_what_it_was_given() -> None:
    cancelled = Event()
    cancelled.set()
    layer = make_divisible(32, 4, 8)
    whole = random_whole(layer)
    solution = divide(layer, whole, NOTHING, TOLERANCE, Deadline(time.monotonic() + 9, cancelled))
    assert solution.makespan_s == pytest.approx(layer.makespan(whole))


@settings(max_examples=30, deadline=None)
@given(divisible_layers(types=3))
def test_retreat_never_loses(layer: LayerProblem) -> None:
    copies = min(layer.max_copies or layer.devices, layer.devices)
    first = np.zeros((layer.items, layer.devices))
    first[:, :copies] = 1 / copies
    spread = Shares.of(first)
    allowed = 1.1 * reached_s(layer, spread)
    fewer = retreat(layer, spread, allowed, soon())
    check(layer, fewer)
    assert reached_s(layer, fewer) <= allowed
    assert len(fewer.item) <= len(spread.item)


def test_retreat_gives_up_a_needless_part() -> None:
    layer = make_divisible(2, 1, 2, charge=0.0, launch=0.0)
    layer.item_s[0] = 1.0
    scattered = Shares.of(np.array([[0.5, 0.5], [0.5, 0.5]]))
    assert not retreat(layer, scattered, 0.0, soon()).divided


def test_divide_over_nodes_obeys_its_rules() -> None:
    layer = make_divisible(16, 2, 12, charge=0.02, part=0.01, max_copies=3)
    solution = divide(layer, random_whole(layer), NOTHING, TOLERANCE, soon(), node_size=4)
    check(layer, solution.shares)
    assert solution.gap < 0.2


def test_unlike_devices_are_proved_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no time is left to search is cut, descended from and bounded all the same."""
    monkeypatch.delattr("solver.divide.divide._searched")
    layer = make_divisible(64, 8, 80, types=2, charge=0.3)
    quick = divide(layer, random_whole(layer), NOTHING, TOLERANCE, soon(), search=False)
    check(layer, quick.shares)
    assert quick.gap < 0.1


def test_every_layer_is_cut_and_bounded_before_any_is_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    how = Search(time_limit_s=60)

    def ended(_: LayerProblem, start: Any, *__: object) -> Searched:
        how.cancelled.set()
        return Searched(start.shares, None)

    monkeypatch.setattr("solver.divide.divide._searched", ended)
    layer = make_divisible(64, 8, 80, types=2, charge=0.3)
    found = solve(_of_layers(layer, 6), how)
    assert how.cancelled.is_set()
    assert max(solved.gap for solved in found.layers) < 0.1


def _of_layers(layer: LayerProblem, layers: int) -> PlacementProblem:
    """Layers that are each a little longer than the one before."""
    types, first = np.unique(layer.type_of, return_index=True)
    longer = 1 + 0.01 * np.arange(layers)[:, None, None]
    head_s = layer.item_s[:, :, first]
    return PlacementProblem(
        head_s=head_s[:, None] * longer,
        part_s=np.zeros((1, layers, layer.items, len(types))),
        group_s=layer.group_s[:, None][..., first] * np.ones((layers, 1, 1)),
        launch_s=layer.launch_s[:, first],
        weights=np.ones(1),
        type_of=layer.type_of,
        divisible=True,
    )
