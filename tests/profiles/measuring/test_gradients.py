"""Errors weighed by the loss' gradient: which rows they are means over, and when there are any."""

import numpy as np
import pytest
import torch

from executor.attention.select import select_for_budgets
from profiles.errors import MeasuringError
from profiles.measuring.choices import Choices
from profiles.measuring.data import Item
from profiles.measuring.layer_attention import LayerAttention
from profiles.measuring.list_recovery import chosen_lists
from profiles.measuring.loading import load
from profiles.measuring.output_error import gradient_errors
from profiles.measuring.prompt_run import PromptRun
from profiles.measuring.sampled_rows import SampledRows, WeightedRows, draw, with_predicting
from profiles.selection import SinkLocal

from . import tiny

TOKENS, SIZE = 128, 16


def run(folder, tmp_path, contexts=(64,), gradients=True, selector=select_for_budgets):
    data = tmp_path / "d.jsonl"
    choices = Choices(str(folder), data, contexts, block_tokens=SIZE, gradients=gradients)
    budgets = dict(zip(contexts, choices.budgets(), strict=True))
    return PromptRun(load(choices), choices, budgets, selector)


def item(tokens: int, answers: tuple[int, ...] = (3,)) -> Item:
    return Item(2, "text", tokens, tuple([5] * tokens), answers)


@pytest.mark.parametrize("asked", [False, True])
def test_only_the_shortest_context_is_differentiated_where_asked(tmp_path, asked: bool) -> None:
    measuring = run(tiny.model(tmp_path / "llama"), tmp_path, (64, 128), asked)
    assert ("gradient_error" in measuring.measure(item(64))) == asked
    assert "gradient_error" not in measuring.measure(item(128))


def test_rows_that_predict_answers_are_seen_whatever_was_sampled(tmp_path) -> None:
    """One answer: its gradient reaches one row of the last layer, which few samples hold."""
    folder = tiny.model(tmp_path / "llama")
    choices = Choices(str(folder), tmp_path, (TOKENS,), block_tokens=SIZE, rows=8, gradients=True)
    measuring = PromptRun(
        load(choices), choices, {TOKENS: choices.budgets()[0]}, select_for_budgets
    )
    made = torch.Generator().manual_seed(1)
    tokens = tuple(torch.randint(4, 64, (TOKENS,), generator=made).tolist())
    found = measuring.measure(Item(0, "text", TOKENS, tokens, (TOKENS - 1,)))
    assert (found["gradient_error"][-1, :, 0] > 0).all()


def test_sampled_rows_estimate_the_mean_over_all_rows() -> None:
    made = torch.Generator().manual_seed(0)
    q, k, v, g = (torch.randn(1, TOKENS, 8, generator=made) for _ in range(4))
    g[:, :100] *= 0.1
    call = LayerAttention(0, q, k, v, 8**-0.5)
    choices = Choices(
        "m", "d", (TOKENS,), block_tokens=SIZE, rows=16, selection=SinkLocal(sink_tokens=SIZE)
    )

    def errors(rows: WeightedRows) -> float:
        lists = chosen_lists(select_for_budgets, call, rows.rows, choices, [2])
        return float(gradient_errors(call, rows, lists, SIZE, g)[0, 0])

    every = torch.arange(TOKENS)
    whole = SampledRows(every, torch.arange(TOKENS // SIZE), every // SIZE)
    wanted = errors(WeightedRows(whole, torch.full((TOKENS,), 1 / TOKENS, dtype=torch.float64)))
    predicting = torch.tensor([101, 120])
    random, found = np.random.default_rng(0), []
    for _ in range(300):
        rows = draw(TOKENS, SIZE, 16, random)
        found.append(errors(with_predicting(rows, predicting, TOKENS, SIZE)))
    error = np.std(found) / len(found) ** 0.5
    assert 0 < error < 0.08 * wanted
    assert abs(np.mean(found) - wanted) < 3 * error


def test_rows_that_predict_answers_are_all_there_where_they_are_few() -> None:
    rows = SampledRows(torch.tensor([3, 9, 20]), torch.tensor([0, 2]), torch.tensor([0, 0, 1]))
    few = with_predicting(rows, torch.tensor([9, 30]), 40, 8)
    assert few.rows.position.tolist() == [9, 30, 3, 20]
    assert few.rows.blocks[few.rows.member].tolist() == [1, 3, 0, 2]
    assert (few.weight * 40).tolist() == pytest.approx([1, 1, 40 / 3, 40 / 3])
    many = with_predicting(rows, torch.arange(4), 40, 8)
    assert many.rows.position.tolist() == [3, 9, 20]
    assert many.weight.tolist() == pytest.approx([1 / 3] * 3)


def test_a_prompt_whose_answers_are_cut_away_is_refused(tmp_path) -> None:
    measuring = run(tiny.model(tmp_path / "llama"), tmp_path)
    with pytest.raises(MeasuringError, match=r"^no token of its answers is left"):
        measuring.measure(item(64, ()))
