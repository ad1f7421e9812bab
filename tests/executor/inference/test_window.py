"""Windows: exact attention within, and the blocks it touches."""

import pytest
import torch

from executor.engines.transformers.attach import attached
from executor.inference import window as windows
from executor.inference.budget_policy import BudgetPolicy
from executor.inference.policy import LayerCall
from executor.inference.window import touched_tiles, windowed

from .models import HEADS, LAYERS, WINDOW, prompt, small


def seen(cached, new, window):
    row, key = torch.arange(cached, cached + new)[:, None], torch.arange(cached + new)
    return (key <= row) & (key > row - window)


@pytest.mark.parametrize(("cached", "new"), [(0, 1), (0, 70), (33, 40), (99, 1), (5, 2)])
@pytest.mark.parametrize("window", [1, 7, 24])
def test_rows_see_their_window(cached, new, window, monkeypatch):
    monkeypatch.setattr(windows, "STRIP_ROWS", 16)
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(4, new, 12, generator=generator)
    keys, values = torch.randn(2, 2, cached + new, 12, generator=generator)
    found = windowed(LayerCall(0, q, keys, values, 0.3, window), 16, 16)
    scores = q.double() @ keys.double().repeat_interleave(2, 0).mT * 0.3
    weights = scores.masked_fill(~seen(cached, new, window), -torch.inf).softmax(-1)
    wanted = weights @ values.double().repeat_interleave(2, 0)
    assert torch.allclose(found.out.double(), wanted, atol=1e-6)
    assert found.tiles == found.dense_tiles == 4 * touched_tiles(cached, new, window, 16, 16)
    assert found.recovery is None


@pytest.mark.parametrize("block_tokens", [1, 16, 32])
@pytest.mark.parametrize("window", [1, 16, 17, 50, 200])
def test_tiles_are_the_blocks_with_a_visible_pair(window, block_tokens):
    for cached, new in ((0, 1), (0, 64), (33, 40), (99, 1), (31, 2)):
        mask = torch.zeros(128, 128, dtype=torch.bool)
        mask[cached : cached + new, : cached + new] = seen(cached, new, window)
        tiles = mask.unflatten(1, (-1, block_tokens)).any(2).unflatten(0, (-1, block_tokens))
        assert touched_tiles(cached, new, window, block_tokens, block_tokens) == int(
            tiles.any(1).sum()
        )


def test_budgets_count_where_the_window_hides_nothing():
    model = small("mistral")
    policy = BudgetPolicy([[16] * HEADS] * LAYERS, block_tokens=16)
    with attached(model, policy) as trace:
        model(prompt(WINDOW - 1))
        assert trace.share == 2 / 3
    with attached(model, policy) as trace:
        model(prompt(WINDOW))
        assert trace.share == 1


def test_budgets_are_those_of_the_layers_without_a_window():
    model = small("gemma3")
    policy = BudgetPolicy([[16] * HEADS] * LAYERS, block_tokens=16, watched_rows=2)
    with attached(model, policy) as trace:
        model(prompt(100))
    assert trace.tiles == HEADS * (touched_tiles(0, 100, WINDOW, 16, 16) + 7)
    assert trace.recovery()[0].isnan().all()
    assert (trace.recovery()[1] < 1).all()
