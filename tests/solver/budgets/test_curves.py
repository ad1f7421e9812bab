"""Recovery at any budget and context."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.cost.work import Workload
from profiles.heads import CurvesForm
from solver.budgets.curves import MeasuredCurves, between
from tests.solver.budgets.builders import random_curves


def one_head(
    contexts: list[int], budgets: list[list[int]], recovery: list[list[float]]
) -> CurvesForm:
    return CurvesForm(context_tokens=contexts, budget_tokens=budgets, recovery=[[recovery]])


def at_tokens(form: CurvesForm, context: int, tokens: int, block: int = 1) -> float:
    curves = MeasuredCurves.of(form).at(Workload(context, block_tokens=block))
    return float(curves.at(np.array([[tokens // block]]))[0, 0])


def test_measured_points_are_given_back() -> None:
    form = one_head([1000], [[100, 300]], [[0.5, 0.9]])
    assert at_tokens(form, 1000, 100) == 0.5
    assert at_tokens(form, 1000, 300) == 0.9


def test_linear_between_points_and_to_both_anchors() -> None:
    form = one_head([1000], [[100, 300]], [[0.5, 0.9]])
    assert at_tokens(form, 1000, 50) == pytest.approx(0.25)
    assert at_tokens(form, 1000, 200) == pytest.approx(0.7)
    assert at_tokens(form, 1000, 650) == pytest.approx(0.95)
    assert at_tokens(form, 1000, 1000) == 1.0


def test_a_dip_in_the_measured_curve_is_levelled() -> None:
    form = one_head([1000], [[100, 200, 300]], [[0.6, 0.5, 0.9]])
    assert at_tokens(form, 1000, 200) == 0.6


def test_points_at_or_beyond_the_context_give_way_to_the_anchor() -> None:
    form = one_head([1000], [[500, 1000, 2000]], [[0.5, 0.7, 0.8]])
    assert at_tokens(form, 1000, 1000) == 1.0
    assert at_tokens(form, 1000, 750) == pytest.approx(0.75)


def test_curves_with_no_point_inside_the_context_are_proportional() -> None:
    form = one_head([1000], [[1000]], [[0.2]])
    assert at_tokens(form, 1000, 250) == pytest.approx(0.25)


def test_the_share_is_kept_from_context_to_context() -> None:
    form = one_head([1000, 4000], [[100], [400]], [[0.5], [0.5]])
    assert at_tokens(form, 2000, 200) == pytest.approx(0.5)


def test_linear_in_the_logarithm_of_the_context() -> None:
    form = one_head([1000, 4000], [[100], [400]], [[0.4], [0.8]])
    assert at_tokens(form, 2000, 200) == pytest.approx(0.6)
    assert at_tokens(form, 1000, 100) == 0.4
    assert at_tokens(form, 4000, 400) == 0.8


@pytest.mark.parametrize(("context", "recovery", "nearest"), [(500, 0.4, 1000), (8000, 0.8, 4000)])
def test_clamped_outside_the_measured_contexts_with_a_warning(
    context: int, recovery: float, nearest: int
) -> None:
    form = one_head([1000, 4000], [[100], [400]], [[0.4], [0.8]])
    assert at_tokens(form, context, context // 10) == pytest.approx(recovery)
    warning = MeasuredCurves.of(form).at(Workload(context)).warning
    assert warning is not None
    assert f"{context} tokens" in warning
    assert f"as at {nearest} tokens" in warning


@pytest.mark.parametrize("context", [1000, 2500, 4000])
def test_no_warning_within_the_measured_contexts(context: int) -> None:
    form = one_head([1000, 4000], [[100], [400]], [[0.4], [0.8]])
    assert MeasuredCurves.of(form).at(Workload(context)).warning is None


@pytest.mark.parametrize("context", [1, 63, 64, 65, 1000])
def test_the_last_block_may_be_cut_short(context: int) -> None:
    curves = MeasuredCurves.of(random_curves(1)).at(Workload(context))
    table = curves.table()
    assert table.shape == (2, 8, -(-context // 64))
    assert (table[..., -1] == 1).all()


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=10, max_size=10),
    st.integers(1, 3000),
    st.sampled_from([1, 7, 64]),
)
def test_tables_never_fall_and_agree_with_single_budgets(
    values: list[float], context: int, block: int
) -> None:
    form = CurvesForm(
        context_tokens=[500, 2000],
        budget_tokens=[[3, 50, 51, 200, 480], [10, 100, 700, 1999, 2500]],
        recovery=[[[values[:5], values[5:]]], [[values[5:], values[:5]]]],
    )
    curves = MeasuredCurves.of(form).at(Workload(context, block_tokens=block))
    table = curves.table()
    assert (np.diff(table, axis=-1) >= 0).all()
    assert ((table >= 0) & (table <= 1)).all()
    for blocks in {1, (curves.context_pieces + 1) // 2, curves.context_pieces}:
        assert (curves.at(np.full((2, 1), blocks)) == table[..., blocks - 1]).all()


def test_pooled_heads_keep_their_curves() -> None:
    curves = MeasuredCurves.of(random_curves(2, layers=3, heads=4)).at(Workload(8192))
    assert (curves.pooled().table().reshape(3, 4, -1) == curves.table()).all()
    assert (curves.layer(1).table()[0] == curves.table()[1]).all()


def test_between_ends_exactly_where_it_should() -> None:
    left, right = 0.1, 0.41
    assert left + (right - left) < right
    ends = between(np.array([0.0, 1.0]), np.array(left), np.array(right))
    assert ends.tolist() == [left, right]


def test_a_window_does_not_grow_with_the_context() -> None:
    """Two layers of the same curve, of which one sees the last 400 tokens."""
    layer = [[[0.5, 0.8]]]
    form = CurvesForm(context_tokens=[1000], budget_tokens=[[100, 300]], recovery=[layer, layer])
    curves = MeasuredCurves.of(form, windows=(None, 400)).at(Workload(10_000, block_tokens=1))
    at = [curves.at(np.full((2, 1), tokens))[:, 0] for tokens in (100, 300, 400, 1000, 3000)]
    expected = [(0.05, 0.5), (0.15, 0.8), (0.2, 1.0), (0.5, 1.0), (0.8, 1.0)]
    assert np.array(at) == pytest.approx(np.array(expected))
    # Measured at a context within the window, the share of what is in reach is kept.
    shorter = MeasuredCurves.of(form, windows=(None, 2000)).at(Workload(10_000, block_tokens=1))
    assert shorter.at(np.full((2, 1), 200))[:, 0] == pytest.approx([0.1, 0.5])
    assert shorter.at(np.full((2, 1), 2000))[1, 0] == 1.0


@pytest.mark.parametrize("context", [2048, 8192, 100_000])
def test_windows_beyond_the_context_change_nothing(context: int) -> None:
    form = random_curves(2, layers=3, heads=4)
    plain = MeasuredCurves.of(form).at(Workload(context))
    windowed = MeasuredCurves.of(form, windows=(None, 200_000, None)).at(Workload(context))
    assert (windowed.shares == plain.shares).all()
    assert (windowed.recovery == plain.recovery).all()


@pytest.mark.parametrize("windows", [(), (300, None, 5000)])
def test_points_are_what_the_curves_of_each_context_say(windows: tuple[int | None, ...]) -> None:
    curves = MeasuredCurves.of(random_curves(2, layers=3, heads=4), windows=windows)
    draw = np.random.default_rng(0)
    layer, head, tokens, context = (draw.integers(1, most, 60) for most in (4, 5, 9000, 200_000))
    found = curves.points(layer - 1, head - 1, tokens, context)
    for number, (mine, its) in enumerate(zip(layer - 1, head - 1, strict=True)):
        whole = curves.at(Workload(int(context[number]), block_tokens=1))
        every = whole.at(np.full((3, 4), tokens[number]))
        assert found[number] == pytest.approx(every[mine, its], abs=1e-12)
