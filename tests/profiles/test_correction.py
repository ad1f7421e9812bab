"""Curves corrected by what was observed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.correction import LEAST, MOST, corrected, loss_ratio
from profiles.errors import ProfileError
from profiles.heads import CurvesForm
from profiles.model import ModelProfile
from tests.solver.profiles import budgets_profile

CURVE = [0.0, 0.5, 0.8, 1.0]


def curves_profile(source: str = "made up", name: str = "m") -> ModelProfile:
    """2 layers x 4 heads, all with CURVE at one context."""
    recovery = [[[CURVE]] * 4] * 2
    selected = [[[[0.9 * r for r in CURVE]]] * 4] * 2
    form = CurvesForm(
        context_tokens=[1024],
        budget_tokens=[[64, 128, 256, 1024]],
        recovery=recovery,
        selected_recovery=selected,
    )
    fields = budgets_profile(layers=2, heads=4, kv_heads=2).model_dump(mode="json")
    fields |= {"name": name, "source": source, "heads": form.model_dump(mode="json")}
    return ModelProfile.model_validate(fields)


def unseen() -> np.ndarray:
    return np.full((2, 4), np.nan)


def test_twice_the_loss_at_one_budget_is_twice_the_loss_at_all() -> None:
    expected, observed = np.full((2, 4), 0.8), unseen()
    observed[1, 2] = 0.6
    found = corrected(curves_profile(), expected, observed, "a test").heads
    assert isinstance(found, CurvesForm)
    np.testing.assert_allclose(found.recovery[1][2][0], [0.0, 0.0, 0.6, 1.0], atol=1e-12)
    assert found.selected_recovery is not None
    np.testing.assert_allclose(found.selected_recovery[1][2][0], [0, 0, 0.44, 0.8], atol=1e-12)
    for layer, head in np.argwhere(np.isnan(observed)):
        np.testing.assert_allclose(found.recovery[layer][head][0], CURVE, atol=1e-12)


def test_half_the_loss_raises_a_curve_but_nothing_out_of_nothing() -> None:
    expected, observed = np.full((2, 4), 0.8), unseen()
    observed[0, 0] = 0.9
    found = corrected(curves_profile(), expected, observed, "a test").heads
    assert isinstance(found, CurvesForm)
    np.testing.assert_allclose(found.recovery[0][0][0], [0.0, 0.75, 0.9, 1.0], atol=1e-12)


def test_the_lineage_is_told_and_does_not_grow() -> None:
    first = curves_profile(source="measured on essays")
    expected, observed = np.full((2, 4), 0.8), np.full((2, 4), 0.7)
    second = corrected(first, expected, observed, "generation 1 of d")
    third = corrected(second, expected, observed, "generation 2 of d")
    assert second.name == third.name == "m.corrected"
    note = f"corrected by what generation 1 of d (from profile {first.digest[:12]})"
    assert second.source == f"measured on essays; {note}"
    assert second.digest[:12] in third.source
    assert third.source.count("corrected by") == 1
    assert ModelProfile.parse(third.model_dump_json(), "again") == third


def test_the_longest_names_and_sources_still_fit() -> None:
    long = curves_profile(source="s" * 2000, name="n" * 128)
    found = corrected(long, np.full((2, 4), 0.8), unseen(), "somebody")
    assert ModelProfile.parse(found.model_dump_json(), "again") == found


@given(
    st.lists(st.tuples(st.floats(0, 1), st.one_of(st.floats(0, 1), st.just(np.nan))), min_size=1)
)
def test_ratios_are_clamped_and_one_where_nothing_is_known(
    pairs: list[tuple[float, float]],
) -> None:
    expected, observed = np.array(pairs).T[:, None]
    found = loss_ratio(expected, observed)
    for (promise, seen), ratio in zip(pairs, found[0], strict=True):
        assert LEAST <= ratio <= MOST
        if np.isnan(seen) or seen == promise:
            assert ratio == 1
        elif 1 - promise > 1e-6:
            assert ratio == pytest.approx(np.clip((1 - seen) / (1 - promise), LEAST, MOST))


@pytest.mark.parametrize(
    ("expected", "observed", "says"),
    [
        (np.full((2, 4), 1.1), np.full((2, 4), 0.5), "expected recovery"),
        (np.full((2, 4), 0.5), np.full((2, 4), -0.1), "observed recovery"),
        (np.full((2, 4), 0.5), np.full((2, 4), np.inf), "observed recovery"),
        (np.full((2, 4), 0.5), np.full((2, 3), 0.5), "shape"),
        (np.full((1, 4), 0.5), np.full((1, 4), 0.5), "2 layers x 4 heads"),
    ],
)
def test_what_is_no_recovery(expected: np.ndarray, observed: np.ndarray, says: str) -> None:
    with pytest.raises(ProfileError, match=says):
        corrected(curves_profile(), expected, observed, "a test")


def test_only_curves_can_be_corrected() -> None:
    stated = budgets_profile(layers=2, heads=4, kv_heads=2)
    with pytest.raises(ProfileError, match="only recovery_curves"):
        corrected(stated, np.full((2, 4), 0.8), unseen(), "a test")


def test_a_context_is_corrected_by_what_was_seen_of_it() -> None:
    one = curves_profile()
    assert isinstance(one.heads, CurvesForm)
    form = one.heads.model_dump() | {
        "context_tokens": [1024, 4096],
        "budget_tokens": [[64, 128, 256, 1024], [256, 512, 1024, 4096]],
        "recovery": [[[CURVE] * 2] * 4] * 2,
        "selected_recovery": None,
    }
    both = one.model_copy(update={"heads": CurvesForm.model_validate(form)})
    expected, observed = np.full((2, 4, 2), 0.8), np.full((2, 4, 2), np.nan)
    observed[1, 2, 1] = 0.6
    found = corrected(both, expected, observed, "a test").heads
    assert isinstance(found, CurvesForm)
    np.testing.assert_allclose(found.recovery[1][2], [CURVE, [0.0, 0.0, 0.6, 1.0]], atol=1e-12)
    np.testing.assert_allclose(found.recovery[1][1], [CURVE, CURVE], atol=1e-12)
    with pytest.raises(ProfileError, match="2 layers x 4 heads"):
        corrected(both, expected[..., :1], observed[..., :1], "a test")
