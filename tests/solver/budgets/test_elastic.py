"""Elastic rules: against trying everything, the bound at every context, and honest proofs."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from profiles.cost.work import Workload, budget_pieces
from profiles.sizes import causal_pieces
from solver.budgets.curves import Ints, MeasuredCurves, RecoveryCurves
from solver.budgets.elastic import Cost, ElasticRules, Menu, elastic
from solver.budgets.errors import BudgetError
from solver.deadline import Deadline
from tests.solver.budgets.builders import random_curves
from tests.solver.problems import soon

BLOCK = 64
ANY = Workload(1)
FINE = Workload(1, block_tokens=64, piece_tokens=16)


def tiles(blocks: Ints, context_tokens: int) -> Ints:
    return causal_pieces(blocks, Workload(context_tokens).context_pieces)


def cancelled() -> Deadline:
    deadline = soon()
    deadline.cancelled.set()
    return deadline


def tiles_of(workload: Workload) -> Cost:
    def cost(pieces: Ints, context_tokens: int) -> Ints:
        rows = replace(workload, context_tokens=context_tokens).context_blocks
        return causal_pieces(pieces, rows, workload.block_pieces)

    return cost


def curves_at(
    contexts: list[int],
    seed: int = 0,
    layers: int = 1,
    heads: int = 3,
    workload: Workload = ANY,
) -> list[RecoveryCurves]:
    form = random_curves(seed, layers, heads)
    return [MeasuredCurves.of(form).at(replace(workload, context_tokens=n)) for n in contexts]


def attended(curves: list[RecoveryCurves], rules: ElasticRules) -> np.ndarray:
    """Mean attended share of every layer at every context, `[layers, contexts]`."""
    means = []
    for at in curves:
        budgets = rules.alpha + rules.beta * at.context_tokens
        blocks = budget_pieces(budgets, Workload(at.context_tokens))
        means.append((tiles(blocks, at.context_tokens) / full(at)).mean(axis=1))
    return np.stack(means, axis=1)


def full(curves: RecoveryCurves, cost: Cost = tiles) -> int:
    return int(cost(np.array(curves.context_pieces), curves.context_tokens))


def loss_of(curves: list[RecoveryCurves], menu: Menu, rules: tuple[int, ...]) -> float:
    """Summed over heads, averaged over contexts."""
    losses = []
    for at in curves:
        blocks = menu.pieces([at.context_tokens])[list(rules), 0]
        losses.append(float((1 - at.at(blocks[None])).sum()))
    return float(np.mean(losses))


def drawn_by(curves: list[RecoveryCurves], menu: Menu, rules: tuple[int, ...]) -> list[float]:
    """Mean attended share at every context."""
    blocks = menu.pieces([at.context_tokens for at in curves])[list(rules)]
    cost, pairs = tiles_of(menu.workload), zip(blocks.T, curves, strict=True)
    return [float(cost(b, at.context_tokens).mean()) / full(at, cost) for b, at in pairs]


@st.composite
def menus(draw: st.DrawFn, most: int = 4) -> Menu:
    alpha = draw(st.lists(st.integers(-16, 32), min_size=1, max_size=most))
    beta = draw(st.lists(st.integers(0, 8), min_size=len(alpha), max_size=len(alpha)))
    workload = draw(st.sampled_from([ANY, FINE]))
    return Menu(BLOCK * np.array([0, *alpha]), np.array([0, *beta]) / 8, workload)


@settings(max_examples=60, deadline=None)
@given(
    menus(),
    st.integers(0, 10_000),
    st.integers(1, 3),
    st.floats(0.05, 1.0),
    st.sampled_from([[8192], [4096, 1024], [8192, 2000, 500]]),
    st.sampled_from([0.0, 0.1, 1.0]),
)
def test_no_choice_within_the_density_loses_less_than_is_claimed(
    menu: Menu, seed: int, heads: int, density: float, contexts: list[int], tolerance: float
) -> None:
    curves = curves_at(contexts, seed, heads=heads, workload=menu.workload)
    cost = tiles_of(menu.workload)
    choices = [
        rules
        for rules in product(range(len(menu.alpha)), repeat=heads)
        if max(drawn_by(curves, menu, rules)) <= density * (1 + 1e-12)
    ]
    if not choices:
        with pytest.raises(BudgetError, match="at least"):
            elastic(curves, menu, cost, density, 0.0, soon())
        return
    least = min(loss_of(curves, menu, rules) for rules in choices)
    found = elastic(curves, menu, cost, density, tolerance, soon())
    assert least - 1e-9 <= found.loss <= least / max(1 - tolerance, 0.1) + 1e-5
    assert found.lower_bound <= least + 1e-9
    assert found.gap <= tolerance + 1e-4


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 12),
    st.floats(0.15, 1.0),
    st.sampled_from([[8192, 4096, 2048], [8000, 1000], [5000]]),
)
def test_every_layer_keeps_the_density_at_every_context(
    seed: int, heads: int, density: float, contexts: list[int]
) -> None:
    curves = curves_at(contexts, seed, layers=2, heads=heads)
    menu = Menu.of(contexts, ANY)
    found = elastic(curves, menu, tiles, density, 0.01, soon(0.1))
    shares = attended(curves, found)
    assert (shares <= density * (1 + 1e-9)).all()
    assert found.density == pytest.approx(shares.mean(axis=0))
    assert found.contexts == tuple(contexts)
    lost = [
        (1 - at.at(budget_pieces(found.alpha + found.beta * n, Workload(n)))).sum()
        for n, at in zip(contexts, curves, strict=True)
    ]
    assert found.loss == pytest.approx(np.mean(lost))
    assert found.lower_bound <= found.loss


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 0.9))
def test_never_worse_than_one_rule_for_all_nor_than_the_greedy_start(
    seed: int, density: float
) -> None:
    contexts = [8192, 2048]
    curves = curves_at(contexts, seed, heads=6)
    menu = Menu.of(contexts, ANY)
    single = min(
        loss_of(curves, menu, (rule,) * 6)
        for rule in range(len(menu.alpha))
        if max(drawn_by(curves, menu, (rule,) * 6)) <= density
    )
    at_once = elastic(curves, menu, tiles, density, 0.0, cancelled())
    start = elastic(curves, menu, tiles, density, 0.0, soon(-1))
    found = elastic(curves, menu, tiles, density, 0.005, soon(0.3))
    assert at_once.loss == pytest.approx(single)
    assert start.loss <= at_once.loss
    assert found.loss <= start.loss
    assert found.lower_bound >= start.lower_bound


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 0.9))
def test_the_bound_before_any_search_is_that_of_the_linear_relaxation(
    seed: int, density: float
) -> None:
    contexts, heads = [8192, 2048], 5
    curves = curves_at(contexts, seed, heads=heads)
    menu = Menu(
        64 * np.array([0, 1, 4, 16, 0, 0, -4]), np.array([0, 0, 0, 0, 0.25, 0.75, 0.5]), ANY
    )
    rules = range(len(menu.alpha))
    blocks = menu.pieces(contexts)
    kept = [
        [at.at(np.full((1, heads), count))[0] for count in counts]
        for at, counts in zip(curves, blocks.T, strict=True)
    ]
    loss = 1 - np.mean(kept, axis=0).T
    drawn = np.array([drawn_by(curves, menu, (rule,)) for rule in rules]).T
    # Tiles are whole.
    most = [np.floor(full(at) * heads * density + 1e-6) / full(at) for at in curves]
    relaxed = linprog(
        loss.ravel(),
        A_ub=np.tile(drawn, (1, heads)),
        b_ub=most,
        A_eq=np.kron(np.eye(heads), np.ones(len(rules))),
        b_eq=np.ones(heads),
    )
    found = elastic(curves, menu, tiles, density, 1.0, soon())
    assert found.lower_bound == pytest.approx(relaxed.fun, rel=1e-4)
    assert found.lower_bound <= relaxed.fun * (1 + 1e-9)


def test_one_bound_for_the_model_serves_it_better_than_one_a_layer() -> None:
    contexts = [8192, 4096]
    curves = curves_at(contexts, 3, layers=6, heads=8)
    menu = Menu.of(contexts, ANY)
    apart = elastic(curves, menu, tiles, 0.3, 1.0, soon())
    together = elastic([c.pooled() for c in curves], menu, tiles, 0.3, 1.0, soon())
    assert together.loss < apart.lower_bound
    assert together.density.max() <= 0.3


def test_the_densest_choice_is_everything() -> None:
    curves = curves_at([8192, 4096], heads=4)
    found = elastic(curves, Menu.of([8192, 4096], ANY), tiles, 1.0, 0.0, soon())
    assert (found.loss, found.lower_bound, found.gap) == (0.0, 0.0, 0.0)
    assert found.density.tolist() == [1.0, 1.0]


def test_when_cancelled_there_is_an_answer_and_no_claim() -> None:
    curves = curves_at([8192, 4096], layers=2, heads=4)
    found = elastic(curves, Menu.of([8192, 4096], ANY), tiles, 0.3, 0.0, cancelled())
    assert found.lower_bound == 0.0
    assert found.gap == 1.0
    assert (attended(curves, found) <= 0.3).all()


def test_a_time_out_is_not_called_an_optimum() -> None:
    """CBC's last answer is proved by nothing but the prices."""
    contexts = [8192, 4096, 2048]
    curves = curves_at(contexts, 1, heads=32)
    menu = Menu.of(contexts, ANY)
    start = elastic(curves, menu, tiles, 0.4, 1.0, soon())
    found = elastic(curves, menu, tiles, 0.4, 0.0, soon(1.0))
    assert found.lower_bound == start.lower_bound
    assert found.gap > 0


def test_says_what_density_the_smallest_rules_need() -> None:
    curves = curves_at([8192, 256])
    with pytest.raises(BudgetError, match=r"density: 0\.1 .* at least 0\.4 .* 8192, 256 tokens"):
        elastic(curves, Menu.of([8192, 256], ANY), tiles, 0.1, 0.0, soon())


@pytest.mark.parametrize("contexts", [[1], [64], [100, 50], [8192, 4096, 2048], [131072, 32768]])
def test_the_menu_has_every_kind_of_rule_and_none_twice(contexts: list[int]) -> None:
    menu = Menu.of(contexts, ANY)
    blocks = menu.pieces(contexts)
    assert len(np.unique(blocks, axis=0)) == len(blocks)
    assert (blocks == 1).all(axis=1).any()
    assert (blocks == [-(-n // BLOCK) for n in contexts]).all(axis=1).any()
    assert len(menu.alpha) < 600
    smallest = menu.alpha + menu.beta * min(contexts)
    assert ((smallest > 0) | ((menu.alpha == 0) & (menu.beta == 0))).all()
    assert ((menu.beta >= 0) & (menu.beta <= 1)).all()
    if contexts[0] > 1000:
        assert menu.alpha.min() < 0 < menu.alpha.max()
        assert 64 in menu.alpha
