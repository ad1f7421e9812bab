"""Budgets of the least weighed loss: against trying everything, and their invariants."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.cost.work import Workload
from profiles.heads import CurvesForm
from profiles.sizes import causal_pieces
from solver.budgets.curves import Floats, Ints, MeasuredCurves, RecoveryCurves
from solver.budgets.errors import BudgetError
from solver.budgets.influence import weighed_shortfall, weights
from solver.budgets.least_loss import LeastLoss, least_loss
from solver.budgets.max_min import Cost, max_min
from solver.budgets.options import Policy
from tests.solver.budgets.builders import (
    by_block,
    curved,
    given_to,
    profile_of,
    random_curves,
    small_curves,
)
from tests.solver.problems import soon

TOTALS = st.sampled_from(["tiles", "tiles of pieces", "tokens"])


def cost_of(curves: RecoveryCurves, total: str) -> Cost:
    """In tokens, or in tiles: of blocks, or of pieces with two to a query block."""
    if total == "tokens":
        return np.asarray
    own = 2 if total == "tiles of pieces" else 1

    def tiles(pieces: Ints) -> Ints:
        return causal_pieces(pieces, -(-curves.context_pieces // own), own)

    return tiles


def chosen(
    curves: RecoveryCurves,
    influence: Floats,
    each: int,
    floor: int,
    total: str,
    seconds: float = 60.0,
    tolerance: float = 0.0,
) -> LeastLoss:
    cost, lost = cost_of(curves, total), weighed_shortfall(curves, influence)
    fair = max_min(curves, each, floor, cost)
    return least_loss(lost, each, floor, cost, tolerance, soon(seconds), fair)


def lost(curves: RecoveryCurves, influence: Floats, blocks: Ints) -> float:
    return float((weights(influence) * (1 - curves.at(blocks))).sum())


def least_by_trying(
    curves: RecoveryCurves, influence: Floats, each: int, floor: int, total: str
) -> float:
    """The least weighed loss of one layer, by trying every choice."""
    heads, table, cost = curves.recovery.shape[1], curves.table()[0], cost_of(curves, total)
    drawn = cost(np.arange(1, curves.context_pieces + 1))
    limit = heads * int(drawn[each - 1])
    weight = weights(influence)[0]
    best = np.inf
    for choice in product(range(floor - 1, curves.context_pieces), repeat=heads):
        if sum(int(drawn[rule]) for rule in choice) <= limit:
            loss = sum(weight[h] * (1 - table[h, rule]) for h, rule in enumerate(choice))
            best = min(best, float(loss))
    return best


@st.composite
def influences(draw: st.DrawFn, layers: int, heads: int) -> Floats:
    figures = st.one_of(st.just(0.0), st.floats(1e-6, 1e6))
    values = draw(st.lists(figures, min_size=layers * heads, max_size=layers * heads))
    return np.array(values).reshape(layers, heads)


@settings(max_examples=30, deadline=None)
@given(small_curves(), st.data(), TOTALS)
def test_no_choice_loses_less(curves: RecoveryCurves, data: st.DataObject, total: str) -> None:
    influence = data.draw(influences(1, curves.recovery.shape[1]))
    each = data.draw(st.integers(1, curves.context_pieces))
    floor = data.draw(st.integers(1, each))
    found = chosen(curves, influence, each, floor, total)
    least = least_by_trying(curves, influence, each, floor, total)
    assert found.loss == pytest.approx(least, rel=1e-5, abs=1e-9)
    assert found.lower_bound <= least * (1 + 1e-9) + 1e-9
    assert found.loss == pytest.approx(lost(curves, influence, found.pieces), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(small_curves(layers=2), st.data(), TOTALS, st.sampled_from([0.0, 60.0]))
def test_total_floor_and_context_are_kept_and_nobody_does_worse(
    curves: RecoveryCurves, data: st.DataObject, total: str, seconds: float
) -> None:
    influence = data.draw(influences(2, curves.recovery.shape[1]))
    each = data.draw(st.integers(1, curves.context_pieces))
    floor = data.draw(st.integers(1, each))
    cost = cost_of(curves, total)
    found = chosen(curves, influence, each, floor, total, seconds)
    alike = np.full_like(found.pieces, each)
    assert (cost(found.pieces).sum(axis=1) <= cost(alike).sum(axis=1)).all()
    assert (found.pieces >= floor).all()
    assert (found.pieces <= curves.context_pieces).all()
    fair = max_min(curves, each, floor, cost)
    assert found.loss <= lost(curves, influence, fair) + 1e-12
    assert found.loss <= lost(curves, influence, alike) + 1e-12
    assert found.lower_bound <= found.loss + 1e-12


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), TOTALS, st.booleans(), st.booleans())
def test_measured_like_curves(seed: int, each: int, total: str, pool: bool, search: bool) -> None:
    form = random_curves(seed)
    curves = MeasuredCurves.of(form).at(Workload(4096))
    influence = np.array(form.influence)
    if pool:
        curves, influence = curves.pooled(), influence.reshape(1, -1)
    found = chosen(curves, influence, each, 2, total, 60.0 if search else 0.0, 1e-3)
    cost = cost_of(curves, total)
    alike = np.full_like(found.pieces, each)
    assert (cost(found.pieces).sum(axis=1) <= cost(alike).sum(axis=1)).all()
    assert found.loss <= lost(curves, influence, max_min(curves, each, 2, cost)) + 1e-12
    assert found.loss <= lost(curves, influence, alike) + 1e-12
    assert found.gap <= (1e-3 if search else 1)
    left = cost(alike).sum(axis=1) - cost(found.pieces).sum(axis=1)
    for layer, head in np.argwhere((found.pieces < curves.context_pieces) & (influence > 0)):
        more = found.pieces.copy()
        more[layer, head] += 1
        if cost(more)[layer, head] - cost(found.pieces)[layer, head] <= left[layer]:
            assert curves.at(more)[layer, head] == curves.at(found.pieces)[layer, head]


@settings(max_examples=8, deadline=None)
@given(small_curves(layers=2), st.data(), TOTALS, st.integers(-900, 900))
def test_only_the_proportions_of_influence_count(
    curves: RecoveryCurves, data: st.DataObject, total: str, power: int
) -> None:
    influence = data.draw(influences(2, curves.recovery.shape[1]))
    each = data.draw(st.integers(1, curves.context_pieces))
    found = chosen(curves, influence, each, 1, total)
    scaled = chosen(curves, influence * 2.0**power, each, 1, total)
    assert (scaled.pieces == found.pieces).all()
    tripled = chosen(curves, influence * 3, each, 1, total)
    assert tripled.loss == pytest.approx(found.loss, rel=1e-5, abs=1e-9)


def test_heads_without_influence_keep_the_floor() -> None:
    curves = MeasuredCurves.of(random_curves(3, layers=1, heads=4)).at(Workload(8192))
    found = chosen(curves, np.array([[0.0, 1.0, 0.0, 2.0]]), 16, 2, "tiles")
    assert found.pieces[0, [0, 2]].tolist() == [2, 2]
    assert found.pieces[0, [1, 3]].max() > 16


def test_a_layer_without_influence_weighs_its_heads_alike() -> None:
    curves = MeasuredCurves.of(random_curves(3, layers=2, heads=4)).at(Workload(8192))
    silent = np.array([[0.0] * 4, [1.0, 5.0, 0.0, 2.0]])
    found = chosen(curves, silent, 16, 2, "tiles")
    alike = chosen(curves, np.ones((2, 4)), 16, 2, "tiles")
    assert (found.pieces[0] == alike.pieces[0]).all()
    assert (found.pieces[1] != alike.pieces[1]).any()
    assert (chosen(curves, np.zeros((2, 4)), 16, 2, "tiles").pieces == alike.pieces).all()


def test_a_plateau_is_not_paid_for() -> None:
    curves = by_block([[[0.4, 0.4, 0.4, 0.8], [0.6, 0.7, 0.9, 0.95]]])
    found = chosen(curves, np.array([[1.0, 1.0]]), 2, 1, "tokens")
    assert found.pieces.tolist() == [[1, 3]]
    assert chosen(curves, np.array([[1.0, 1.0]]), 3, 1, "tokens").pieces.tolist() == [[5, 1]]
    assert chosen(curves, np.array([[1.0, 9.0]]), 3, 1, "tokens").pieces.tolist() == [[1, 5]]


def test_when_cancelled_the_best_of_the_starts_with_no_proof() -> None:
    curves = MeasuredCurves.of(random_curves(0)).at(Workload(8192))
    cancelled = soon()
    cancelled.cancelled.set()
    influence = np.ones((2, 8))
    fair = max_min(curves, 16, 2, cost_of(curves, "tiles"))
    shortfall = weighed_shortfall(curves, influence)
    found = least_loss(shortfall, 16, 2, cost_of(curves, "tiles"), 0.0, cancelled, fair)
    assert found.lower_bound == 0
    assert found.gap == 1
    assert found.loss <= lost(curves, influence, fair)


@pytest.mark.parametrize("policy", ["influence", "least_error"])
def test_too_many_head_blocks_are_refused(policy: Policy) -> None:
    with pytest.raises(BudgetError, match="use larger pieces, or policy 'max_min'"):
        given_to(curved(16, 64), 16 * 2**20, policy=policy, tokens=2**20)


def test_the_policy_needs_influence() -> None:
    form = random_curves(0).model_copy(update={"influence": None})
    profile = profile_of(form.model_dump(), 2, 8)
    with pytest.raises(BudgetError, match=r"'influence' .* 'tested' has none; measure it"):
        given_to(profile, policy="influence", tokens=1024)


@pytest.mark.parametrize("scope", ["layer", "model"])
def test_the_policy_loses_less_than_any_other_of_the_total(scope: str) -> None:
    profile = curved(layers=3)
    assert isinstance(profile.heads, CurvesForm)
    weight = np.array(profile.heads.influence)
    losses = {}
    for policy in ("influence", "max_min", "max_min_shifting", "uniform"):
        budgets = given_to(profile, policy=policy, tokens=1024, scope=scope, seconds=30)
        assert budgets.recovery is not None
        losses[policy] = float((weight * (1 - budgets.recovery)).sum())
    assert losses["influence"] < 0.9 * min(losses[policy] for policy in list(losses)[1:])


def test_the_policy_says_what_it_could_not_prove_and_where_nothing_weighs() -> None:
    silent = random_curves(0).model_copy(update={"influence": [[0.0] * 8, [1.0] * 8]})
    profile = profile_of(silent.model_dump(), 2, 8)
    budgets = given_to(profile, policy="influence", tokens=1024, seconds=30)
    assert "influence of 1 of 2 layers is 0" in budgets.warnings[0]
    assert len(budgets.warnings) == 1
    hurried = given_to(profile, policy="influence", tokens=1024, scope="model", seconds=0)
    assert all("influence of" not in warning for warning in hurried.warnings)
    silenced = silent.model_copy(update={"influence": [[0.0] * 8] * 2})
    alike = given_to(
        profile_of(silenced.model_dump(), 2, 8), policy="influence", tokens=1024, scope="model"
    )
    assert "influence of all heads is 0" in alike.warnings[0]


def test_the_whole_context_for_all_loses_nothing() -> None:
    curves = by_block([[[0.1, 0.2], [0.3, 0.4]]])
    assert chosen(curves, np.ones((1, 2)), 3, 1, "tiles").pieces.tolist() == [[3, 3]]
    assert chosen(curves, np.ones((1, 2)), 3, 3, "tiles").gap == 0


def test_where_all_are_at_the_floor_there_is_nothing_to_prove() -> None:
    curves = MeasuredCurves.of(random_curves(0)).at(Workload(8192))
    found = chosen(curves, np.ones((2, 8)), 7, 7, "tiles", 0.0)
    assert (found.pieces == 7).all()
    assert found.gap == 0
    assert found.loss == pytest.approx(lost(curves, np.ones((2, 8)), found.pieces))
