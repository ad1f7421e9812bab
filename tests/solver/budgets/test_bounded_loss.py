"""The cheapest budgets within a loss: against trying everything, promises kept, more for less."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.cost.work import Workload
from profiles.sizes import causal_pieces
from solver.budgets.bounded_loss import Cheapest, cheapest
from solver.budgets.curves import Floats, Ints
from solver.budgets.errors import BudgetError
from solver.budgets.least_error import summed_error
from tests.solver.budgets.builders import calibrated, curved, given_to, profile_of
from tests.solver.problems import soon


def cost(pieces: Ints) -> Ints:
    """Tiles of a context of eight blocks: totals so small that nothing is left open."""
    return causal_pieces(pieces, 8)


def within(lost: Floats, bound: float, floor: int = 1) -> Cheapest:
    return cheapest(lost, bound, floor, cost, 0.0, soon(60))


def loss_of(lost: Floats, pieces: Ints) -> float:
    return float(np.take_along_axis(lost, pieces[..., None] - 1, axis=-1).sum())


@st.composite
def tables(draw: st.DrawFn) -> Floats:
    """Up to two pools of three heads and five pieces, the last of which loses nothing."""
    pools, heads, pieces = (draw(st.integers(1, most)) for most in (2, 3, 5))
    figures = draw(st.sampled_from([st.integers(0, 10), st.floats(0.001, 1000)]))
    count = pools * heads * pieces
    values = draw(st.lists(figures, min_size=count, max_size=count))
    table = -np.sort(-np.array(values, dtype=np.float64).reshape(pools, heads, pieces))
    table[..., -1] = 0
    return table


@settings(max_examples=80, deadline=None)
@given(tables(), st.floats(0.001, 60), st.data())
def test_no_smaller_total_keeps_the_bound(lost: Floats, bound: float, data: st.DataObject) -> None:
    pools, heads, pieces = lost.shape
    floor = data.draw(st.integers(1, pieces))
    found = within(lost, bound, floor)
    assert loss_of(lost, found.pieces) <= bound
    assert (found.pieces >= floor).all()
    assert (cost(found.pieces).sum(axis=1) <= found.total).all()
    drawn = cost(np.arange(1, pieces + 1))
    choices = list(product(range(floor - 1, pieces), repeat=heads))
    sums = [sum(int(drawn[rule]) for rule in choice) for choice in choices]

    def least(pool: int, total: int) -> float:
        return min(
            sum(lost[pool, head, rule] for head, rule in enumerate(choice))
            for choice, spent in zip(choices, sums, strict=True)
            if spent <= total
        )

    enough = [t for t in set(sums) if sum(least(pool, t) for pool in range(pools)) <= bound]
    assert found.total == min(enough)
    assert found.proved <= found.total


@settings(max_examples=80, deadline=None)
@given(tables(), st.floats(0.001, 60), st.floats(1, 3))
def test_a_larger_bound_costs_no_more(lost: Floats, bound: float, times: float) -> None:
    smaller, larger = within(lost, bound), within(lost, bound * times)
    assert larger.total <= smaller.total
    assert cost(larger.pieces).sum() <= smaller.total * len(lost)


def test_all_keys_where_nothing_less_will_do() -> None:
    lost = np.array([[[3.0, 2.0, 1.0, 0.0], [9.0, 9.0, 9.0, 0.0]]])
    assert within(lost, 1e-9).pieces.tolist() == [[4, 4]]
    assert within(lost, 100.0).pieces.tolist() == [[1, 1]]


@pytest.mark.parametrize("scope", ["layer", "model"])
def test_the_upper_end_of_the_prediction_keeps_the_bound(scope: str) -> None:
    profile, at = calibrated(layers=4), Workload(8192)
    spent = []
    for bound in (8.0, 2.0, 0.5, 0.02, 1e-6):
        found = given_to(profile, policy="least_error", loss=bound, scope=scope, floor_tokens=64)
        assert 0.8 * summed_error(profile, found.tokens, at) <= bound
        tiles = causal_pieces(found.tokens // 64, 128)
        spent.append(int(tiles.sum()))
        if 0.02 <= bound <= 2:
            # A little less would not do.
            less = np.maximum(found.tokens - 64, 64)
            assert 0.8 * summed_error(profile, less, at) > bound
    assert spent == sorted(spent)
    assert spent[-1] == 4 * 8 * causal_pieces(128, 128)
    assert not found.warnings


def test_one_total_for_the_model_is_no_dearer() -> None:
    layer, model = (
        given_to(calibrated(layers=6), policy="least_error", loss=0.5, scope=scope).tokens
        for scope in ("layer", "model")
    )
    assert causal_pieces(model // 64, 128).sum() <= causal_pieces(layer // 64, 128).sum()


def test_another_context_than_the_calibrated_is_said() -> None:
    found = given_to(calibrated(), 4096, policy="least_error", loss=0.5)
    assert found.warnings[-1].endswith("calibrated at 8192 tokens, the context is 4096")


def test_a_profile_that_cannot_promise_a_loss() -> None:
    with pytest.raises(BudgetError, match=r"budget\.loss: .* does not say what its errors cost"):
        given_to(curved(), policy="least_error", loss=0.5)
    bare = profile_of(curved().heads.model_dump(exclude={"output_error"}), 2, 8)
    with pytest.raises(BudgetError, match="'least_error' needs output errors"):
        given_to(bare, policy="least_error", loss=0.5)
