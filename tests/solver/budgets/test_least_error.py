"""Budgets of the least error: tables as measured, and what the policy makes of them."""

import numpy as np
import pytest

from profiles.cost.work import Workload
from profiles.heads import CurvesForm
from solver.budgets.allocate import LOSS_TOLERANCE
from solver.budgets.curves import Floats
from solver.budgets.errors import BudgetError
from solver.budgets.least_error import error_table
from tests.solver.budgets.builders import BLOCK, curved, given_to, profile_of


def form(**more: object) -> CurvesForm:
    """One layer of two heads at two contexts, measured at 1, 2 and all of 4 or 8 blocks."""
    recovery = np.full((1, 2, 2, 3), 0.5)
    error = np.array([[[[8, 4, 0], [6, 6, 0]], [[1, 0.5, 0], [2, 3, 0.25]]]], dtype=float)
    return CurvesForm(
        context_tokens=[4 * BLOCK, 8 * BLOCK],
        budget_tokens=[[BLOCK, 2 * BLOCK, 4 * BLOCK], [BLOCK, 2 * BLOCK, 8 * BLOCK]],
        recovery=recovery.tolist(),
        output_error=error.tolist(),
        gradient_error=[[[4.0, 2.0, 0.0], [0.0, 0.0, 0.0]]],
        **more,  # type: ignore[arg-type]
    )


def table(error: str, context: int, piece: int = BLOCK, window: int | None = None) -> Floats:
    workload = Workload(context, block_tokens=BLOCK, piece_tokens=piece)
    profile = profile_of(form().model_dump(), 1, 2)
    architecture = profile.architecture.model_copy(update={"windows": (window,)})
    profile = profile.model_copy(update={"architecture": architecture})
    return error_table(profile, error, workload)  # type: ignore[arg-type]


def test_errors_are_as_measured_and_all_keys_leave_none() -> None:
    assert table("output", 4 * BLOCK)[0].tolist() == [[8, 4, 2, 0], [1, 0.5, 0.25, 0]]


def test_a_measured_error_that_rises_is_levelled() -> None:
    long = table("output", 8 * BLOCK)[0]
    assert long[1, :2].tolist() == [2, 2]
    assert (np.diff(long) <= 0).all()


def test_budgets_below_the_least_measured_lose_what_it_does() -> None:
    fine = table("output", 4 * BLOCK, 16)[0, 0]
    assert fine[:4].tolist() == [8] * 4
    assert fine[4:8].tolist() == pytest.approx([7, 6, 5, 4])


def test_between_contexts_shares_are_interpolated() -> None:
    """At sqrt(4 * 8) blocks half of each, by logarithm; a context beyond is taken as the last."""
    between = table("output", 362)[0, 0]
    low, high = (table("output", context)[0, 0] for context in (4 * BLOCK, 8 * BLOCK))
    assert between[0] == pytest.approx((low[0] + high[0]) / 2, rel=1e-3)
    assert low[0] > high[0]
    assert between[-1] == 0
    assert table("output", 16 * BLOCK)[0, 0, 1::2].tolist() == pytest.approx(high.tolist())


def test_errors_within_a_window_do_not_stretch_with_the_context() -> None:
    """Four blocks are in reach at any context: of the first head 8 and 4 at one and at two."""
    short = table("output", 4 * BLOCK)[0]
    assert table("output", 4 * BLOCK, window=4 * BLOCK)[0].tolist() == short.tolist()
    gradients = table("gradient", 64 * BLOCK, window=4 * BLOCK)[0, 0]
    assert gradients[:5].tolist() == [4, 2, 1, 0, 0]
    long = table("output", 64 * BLOCK, window=4 * BLOCK)[0]
    # As measured at the longer context, levelled, and with nothing left of what is out of reach.
    assert long[:, :4].tolist() == [[6, 6, 3, 0], [2, 2, 1, 0]]
    assert not long[:, 4:].any()


def test_gradients_are_those_of_the_shortest_context() -> None:
    assert table("gradient", 4 * BLOCK)[0].tolist() == [[4, 2, 1, 0], [0, 0, 0, 0]]
    assert table("gradient", 8 * BLOCK)[0, 0, 1::2].tolist() == [4, 2, 1, 0]


def test_one_pool_for_the_model_loses_no_more() -> None:
    profile = curved(layers=6)
    lost = error_table(profile, "output", Workload(8192))

    def left(scope: str, policy: str = "least_error") -> float:
        budgets = given_to(profile, policy=policy, tokens=1024, scope=scope, floor_tokens=64)
        rows = np.take_along_axis(lost, budgets.tokens[..., None] // 64 - 1, axis=2)
        return float(rows.sum())

    assert left("model") <= left("layer") <= left("layer", "max_min")


def test_weighed_by_gradients() -> None:
    """The second head costs the loss nothing, though its output moves."""
    profile = profile_of(form().model_dump(), 1, 2)
    found = given_to(
        profile,
        4 * BLOCK,
        policy="least_error",
        error="gradient",
        tokens=2 * BLOCK,
        floor_tokens=64,
    )
    assert found.tokens.tolist() == [[4 * BLOCK, BLOCK]]


@pytest.mark.parametrize(
    ("error", "field"), [("output", "output_error"), ("gradient", "gradient_error")]
)
def test_the_policy_needs_errors(error: str, field: str) -> None:
    lacking = curved().heads.model_copy(update={field: None})
    profile = profile_of(lacking.model_dump(), 2, 8)
    with pytest.raises(BudgetError, match=f"needs {error} errors, but profile 'tested' has none"):
        given_to(profile, policy="least_error", error=error, tokens=1024)


def test_too_many_head_pieces_are_refused() -> None:
    with pytest.raises(BudgetError, match="use larger pieces, or policy 'max_min'"):
        given_to(curved(16, 64), 16 * 2**20, policy="least_error", tokens=2**20)


def test_the_policy_says_what_it_could_not_prove() -> None:
    """All of one head's cliff, or nothing: no budgets are as good as a share of it would be."""
    flat = form().model_copy(update={"output_error": [[[[8, 8, 0]] * 2, [[6, 6, 0]] * 2]]})
    profile = profile_of(flat.model_dump(), 1, 2)
    asked = {"policy": "least_error", "tokens": 2 * BLOCK, "floor_tokens": 64, "total": "tokens"}
    hurried = given_to(profile, 4 * BLOCK, seconds=0, **asked)
    [warning] = hurried.warnings
    assert hurried.gap is not None
    assert f"proved only to be within {hurried.gap:.1%} of the least" in warning
    settled = given_to(profile, 4 * BLOCK, seconds=30, **asked)
    assert settled.warnings == ()
    assert settled.gap is not None
    assert 0 <= settled.gap <= LOSS_TOLERANCE < hurried.gap
    assert given_to(profile, 4 * BLOCK, policy="uniform", tokens=2 * BLOCK).gap is None
