import pytest

from profiles.cli.head_figures import head_tokens
from profiles.heads import BudgetsForm, CurvesForm, Heads, RulesForm, SamplesForm


@pytest.mark.parametrize(
    ("heads", "tokens"),
    [
        (BudgetsForm(tokens=[[64, 128]]), [64, 128]),
        (RulesForm(alpha_tokens=[[1024, -1024, -64]], beta=[[1, 0.5, 0]]), [131072, 64512, 0]),
        (
            SamplesForm(
                context_tokens=[10, 20], task=["a", "b"], kept_tokens=[[[10, 0]], [[20, 10]]]
            ),
            [15, 5],
        ),
        (
            CurvesForm(
                context_tokens=[128, 256],
                budget_tokens=[[64, 128], [100, 256]],
                recovery=[[[[0, 0], [0.9, 1]], [[1, 1], [0.5, 0.6]], [[1, 1], [0.8, 1]]]],
            ),
            [100, 256, 178],
        ),
    ],
)
def test_one_figure_per_head(heads: Heads, tokens: list[float]) -> None:
    assert head_tokens(heads)[0].tolist() == [pytest.approx(tokens)]
