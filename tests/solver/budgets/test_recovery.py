"""Least budgets for one recovery ratio."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.cost.work import Workload
from profiles.heads import CurvesForm
from solver.budgets.curves import MeasuredCurves
from solver.budgets.recovery import least_pieces
from tests.solver.budgets.builders import by_block


def test_exactly_the_measured_budget() -> None:
    form = CurvesForm(
        context_tokens=[131072],
        budget_tokens=[[4096, 8192]],
        recovery=[[[[0.9, 0.95]], [[0.8999, 0.9]]]],
    )
    curves = MeasuredCurves.of(form).at(Workload(131072))
    assert least_pieces(curves, 0.9).tolist() == [[4096 // 64, 8192 // 64]]


def test_a_target_per_layer_and_head() -> None:
    curves = by_block([[[0.2, 0.5, 0.5]], [[0.2, 0.5, 0.5]]])
    assert least_pieces(curves, np.array([[0.2], [0.4]])).tolist() == [[1], [2]]


def test_everything_takes_the_whole_context_unless_reached_before() -> None:
    curves = by_block([[[0.2, 0.5, 0.9], [0.2, 1.0, 1.0]]])
    assert least_pieces(curves, 1.0).tolist() == [[4, 2]]
    assert least_pieces(curves, 1.5).tolist() == [[4, 4]]


def test_nothing_still_takes_a_block() -> None:
    assert least_pieces(by_block([[[0.0, 0.0, 0.0]]]), 0.0).tolist() == [[1]]


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=12, max_size=12),
    st.floats(0, 1),
    st.integers(1, 3000),
    st.sampled_from([1, 64, 128]),
)
def test_the_least_that_reach_it(
    values: list[float], target: float, context: int, block: int
) -> None:
    form = CurvesForm(
        context_tokens=[500, 2000],
        budget_tokens=[[3, 200, 480], [100, 700, 1999]],
        recovery=[[[values[:3], values[3:6]], [values[6:9], values[9:]]]],
    )
    curves = MeasuredCurves.of(form).at(Workload(context, block_tokens=block))
    expected = np.argmax(curves.table() >= target, axis=-1) + 1
    assert (least_pieces(curves, target) == expected).all()


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(1, 40))
def test_near_flat_curves_lose_nothing_to_rounding(base: float, ulps: int) -> None:
    """A rise of a few units in the last place over many blocks: its inverse is all rounding."""
    top = min(base + ulps * np.spacing(base), 1.0)
    form = CurvesForm(
        context_tokens=[64_000], budget_tokens=[[64, 60_000]], recovery=[[[[base, top]]]]
    )
    curves = MeasuredCurves.of(form).at(Workload(64_000))
    for target in (base, np.nextafter(base, 1), top):
        expected = np.argmax(curves.table() >= target, axis=-1) + 1
        assert (least_pieces(curves, target) == expected).all()
