import pytest

from profiles.architecture import Architecture, Windows
from profiles.cli.head_figures import head_tokens, shape_in_words
from profiles.heads import BudgetsForm, CurvesForm, Heads, RulesForm, SamplesForm
from profiles.public_models import MODELS


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
@pytest.mark.parametrize("windows", [(), (70,)])
def test_one_figure_per_head_within_the_window(
    heads: Heads, tokens: list[float], windows: Windows
) -> None:
    shape = Architecture(
        layers=1,
        query_heads=len(tokens),
        kv_heads=1,
        head_dim=8,
        hidden_size=32,
        windows=windows,
    )
    seen = [min(figure, *windows, 10**9) for figure in tokens]
    assert head_tokens(heads, shape)[0].tolist() == [pytest.approx(seen)]


def test_a_shape_says_its_windows() -> None:
    assert shape_in_words(MODELS["Llama-3.1-8B"]) == "32 layers x 32 heads (8 KV)"
    hybrid = shape_in_words(MODELS["GPT-OSS-20B"])
    assert hybrid == "24 layers x 64 heads (8 KV), 12 with a window of 128"
