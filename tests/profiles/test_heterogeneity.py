import numpy as np
import pytest
from scipy.stats import spearmanr

from profiles.heads import CurvesForm
from profiles.heterogeneity import head_shares, needed_shares, rank_correlations, spearman


def test_needs_are_interpolated_between_points() -> None:
    recovery = np.array([[0.5, 0.8, 1.0], [0.95, 0.97, 1.0], [0.1, 0.2, 0.3], [0.95, 0.2, 1.0]])
    shares = needed_shares(recovery, np.array([16.0, 32, 64]), 64)
    # Never below the first point; never reached: the last; falling curves are made monotone.
    assert shares.tolist() == pytest.approx([0.75, 0.25, 1.0, 0.25])


def test_shares_of_every_context() -> None:
    heads = CurvesForm(
        context_tokens=[128, 256],
        budget_tokens=[[64, 128], [128, 256]],
        recovery=[[[[0.8, 1.0], [0.9, 1.0]], [[0.9, 1.0], [0.85, 0.95]]]],
    )
    assert head_shares(heads).ravel().tolist() == pytest.approx([0.75, 0.5, 0.5, 0.75])


def test_rank_correlations_of_every_pair() -> None:
    random = np.random.default_rng(0)
    shares = {name: random.random((2, 5)) for name in "abc"}
    found = rank_correlations("task", shares)
    assert [pair.between for pair in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    wanted = spearmanr(shares["a"].ravel(), shares["c"].ravel()).statistic
    assert found[1].model == pytest.approx(wanted)
    for layer in range(2):
        wanted = spearmanr(shares["b"][layer], shares["c"][layer]).statistic
        assert found[2].layers[layer] == pytest.approx(wanted)


def test_heads_that_all_need_the_same_have_no_order() -> None:
    assert spearman(np.array([0.5, 0.5]), np.array([0.1, 0.2])) is None
    assert spearman(np.array([0.5]), np.array([0.1])) is None
    assert spearman(np.array([0.1, 0.2, 0.3]), np.array([3.0, 2.0, 1.0])) == -1
