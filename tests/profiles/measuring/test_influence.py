"""MoA's influence against autograd's own gradient of eager attention's maps."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from profiles.measuring.choices import Choices
from profiles.measuring.data import Item
from profiles.measuring.head_influence import WeightedRows, influence, weighted_rows
from profiles.measuring.layer_attention import LayerAttention
from profiles.measuring.loading import load
from profiles.measuring.prompt_run import PromptRun
from profiles.measuring.sampled_rows import SampledRows, draw

from . import tiny

TOKENS = 64


@pytest.mark.parametrize("answers", [range(1, TOKENS), [50, 51, 63]], ids=["all", "answers"])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_influence_is_that_of_the_gradient_to_the_maps(tmp_path, family: str, answers) -> None:
    """All rows are looked at, so that nothing is sampled: sum |A (G - sum A G)| by definition."""
    folder = tiny.model(tmp_path / family, family)
    tokens = torch.randint(4, 64, (1, TOKENS), generator=torch.Generator().manual_seed(1))
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    result = model(tokens, output_attentions=True)
    for attention in result.attentions:
        attention.retain_grad()
    at = torch.tensor(list(answers))
    torch.nn.functional.cross_entropy(result.logits[0, at - 1], tokens[0, at]).backward()
    wanted = []
    for attention in result.attentions:
        a, g = (x[0].double() for x in (attention.detach(), attention.grad))
        wanted.append((a * (g - (a * g).sum(-1, keepdim=True))).abs().sum(-1).mean(-1).numpy())

    choices = Choices(str(folder), tmp_path, (TOKENS,), block_tokens=16, rows=TOKENS)
    run = PromptRun(load(choices), choices, {TOKENS: choices.budgets()[0]}, None)
    found = run.measure(Item(0, "text", TOKENS, tuple(tokens[0].tolist()), tuple(answers)))
    assert set(found) == {"recovery", "influence"}
    assert found["influence"] == pytest.approx(np.array(wanted), rel=1e-3)
    assert (found["influence"] > 0).all()


def test_only_the_shortest_context_is_differentiated(tmp_path) -> None:
    folder = tiny.model(tmp_path / "llama")
    choices = Choices(str(folder), tmp_path, (64, 128), block_tokens=16)
    budgets = dict(zip(choices.contexts, choices.budgets(), strict=True))
    run = PromptRun(load(choices), choices, budgets, None)
    found = run.measure(Item(0, "text", 128, tuple([5] * 128), (3,)))
    assert set(found) == {"recovery"}


def test_sampled_rows_estimate_the_mean_over_all_rows() -> None:
    made = torch.Generator().manual_seed(0)
    q, k, v, g = (torch.randn(1, 128, 8, generator=made) for _ in range(4))
    g[:, :100] *= 0.1
    call = LayerAttention(0, q, k, v, 8**-0.5)
    every = WeightedRows(torch.arange(128), torch.full((128,), 1 / 128, dtype=torch.float64))
    wanted = float(influence(call, g, every)[0])
    predicting = torch.tensor([101, 120])
    random, found = np.random.default_rng(0), []
    for _ in range(300):
        rows = draw(128, 16, 16, random)
        weighted = weighted_rows(rows, predicting, 128)
        found.append(float(influence(call, g, weighted)[0]))
    error = np.std(found) / len(found) ** 0.5
    assert 0 < error < 0.05 * wanted
    assert abs(np.mean(found) - wanted) < 3 * error


def test_rows_that_predict_answers_are_all_there_where_they_are_few() -> None:
    rows = SampledRows(
        torch.tensor([3, 9, 20]), torch.tensor([0]), torch.zeros(3, dtype=torch.int64)
    )
    few = weighted_rows(rows, torch.tensor([9, 30]), 40)
    assert few.position.tolist() == [9, 30, 3, 20]
    assert (few.weight * 40).tolist() == pytest.approx([1, 1, 40 / 3, 40 / 3])
    many = weighted_rows(rows, torch.arange(4), 40)
    assert many.position.tolist() == [3, 9, 20]


def test_a_prompt_whose_answers_are_cut_away_is_named(tmp_path) -> None:
    folder = tiny.model(tmp_path / "llama")
    choices = Choices(str(folder), tmp_path / "d.jsonl", (64,), block_tokens=16)
    run = PromptRun(load(choices), choices, {64: choices.budgets()[0]}, None)
    with pytest.raises(Exception, match=r"d\.jsonl: prompt 3: no token of its answers"):
        run.measure(Item(2, "text", 64, tuple([5] * 64), ()))
