"""The fillings of one device against every set of items on the grid."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.filling.grid import Grid, make_grid
from solver.filling.knapsack import DividedKnapsack, Filling, Knapsack
from solver.shares import Floats, Ints
from tests.solver.filling.cases import Case, cases
from tests.solver.problems import soon

CAPACITY = 40


def grid_of(case: Case, *, divisible: bool = False) -> Grid:
    """Costs on a coarse grid; what is reached leaves no room for all items."""
    costs = (case.item_s, case.charge_s, case.launch_s, case.group_of)
    reached_s = 0.7 * case.load(np.ones(len(case.item_s)), 0)
    return make_grid(*costs, reached_s, CAPACITY, divisible=divisible)


def filled(
    grid: Grid, values: Floats, holding: int | None = None, *, divisible: bool = False
) -> Filling:
    if divisible:
        return DividedKnapsack(grid, 0, values, CAPACITY + 1, soon())
    return Knapsack(grid, 0, values, CAPACITY + 1, soon(), holding).holding(holding)


def cost(grid: Grid, shares: Floats) -> Floats:
    """Grid units of a device of type 0 with these shares, `[sets]` of `[sets, items]`."""
    entered = np.array([(shares[:, items] > 0).any(axis=1) for items in grid.members])
    own = shares @ grid.item[:, 0] + grid.charge[:, 0] @ entered
    return np.asarray(own + np.where(shares.any(axis=1), grid.launch[0], 0))


def most_valuable(grid: Grid, values: Floats, holding: int | None) -> Floats:
    """What the best set within every capacity is worth, `[capacities]`; 0 where none fits."""
    sets = np.array(list(product((0.0, 1.0), repeat=len(values))))
    if holding is not None:
        sets = sets[sets.sum(axis=1) == holding]
    worth, needed = sets @ values, cost(grid, sets)
    within = [worth[needed <= capacity] for capacity in range(CAPACITY + 1)]
    return np.array([fitting.max(initial=0.0) for fitting in within])


def worthwhile(filling: Filling) -> Ints:
    """Capacities at which something is worth filling in."""
    return np.flatnonzero(filling.best > 0)


def values_of(case: Case, seed: int) -> Floats:
    """Random values, some of them nothing."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.lognormal(0, 1, len(case.item_s)) * (rng.random(len(case.item_s)) < 0.8))


@settings(max_examples=30, deadline=None)
@given(cases(items=7, devices=1), st.integers(0, 1000), st.sampled_from([None, 1, 3]))
def test_no_set_within_a_capacity_is_worth_more(case: Case, seed: int, holding: int | None) -> None:
    grid, values = grid_of(case), values_of(case, seed)
    if holding is not None:
        holding = min(holding, len(values))
    filling = filled(grid, values, holding)
    assert filling.best == pytest.approx(most_valuable(grid, values, holding))
    capacities = worthwhile(filling)
    chosen = filling.columns(capacities)
    assert np.isin(chosen, (0, 1)).all()
    assert chosen @ values == pytest.approx(filling.best[capacities])
    assert (cost(grid, chosen) <= capacities).all()
    assert holding is None or (chosen.sum(axis=1) == holding).all()


@settings(max_examples=30, deadline=None)
@given(cases(items=7, devices=1), st.integers(0, 1000))
def test_parts_are_worth_at_least_whole_items_within_a_unit_more(case: Case, seed: int) -> None:
    grid, values = grid_of(case, divisible=True), values_of(case, seed)
    filling = filled(grid, values, divisible=True)
    assert (filling.best >= most_valuable(grid, values, None) * (1 - 1e-12)).all()
    capacities = worthwhile(filling)
    shares = filling.columns(capacities).reshape(-1, len(values))
    assert ((shares >= 0) & (shares <= 1)).all()
    assert shares @ values == pytest.approx(filling.best[capacities])
    assert (cost(grid, shares) <= capacities + 1 + 1e-9).all()
