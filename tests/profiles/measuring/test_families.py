"""Curves of several model families against float64 brute force on eager attention's own maps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from executor.attention.select import select_for_budgets
from profiles.measuring import capture
from profiles.measuring.choices import Choices
from profiles.measuring.data import Item
from profiles.measuring.layer_attention import LayerAttention
from profiles.measuring.loading import load
from profiles.measuring.prompt_run import PromptRun
from profiles.measuring.sampled_rows import draw

from . import brute, tiny

SIZE, TOKENS, ROWS = 16, 150, 24


@pytest.fixture(params=list(tiny.FAMILIES))
def family(request):
    return request.param


@pytest.fixture
def folder(tmp_path, family):
    return tiny.model(tmp_path / family, family)


@pytest.fixture
def choices(folder, tmp_path):
    return Choices(str(folder), tmp_path / "none", (TOKENS,), block_tokens=SIZE, rows=ROWS)


@pytest.fixture
def tokens():
    return torch.randint(4, 64, (1, TOKENS), generator=torch.Generator().manual_seed(5))


@pytest.fixture
def eager(folder, tokens):
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        return model(tokens, output_attentions=True)


def windows(config):
    """The window of every layer, or None."""
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        return [getattr(config, "sliding_window", None)] * config.num_hidden_layers
    return [config.sliding_window if kind == "sliding_attention" else None for kind in kinds]


def test_the_model_computes_what_it_always_does(choices, tokens, eager) -> None:
    with torch.no_grad():
        logits = load(choices).model(tokens).logits
    assert torch.allclose(logits, eager.logits, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("own", [1, 2])
def test_curves_are_those_of_the_maps(family, choices, tokens, eager, own) -> None:
    """Of query blocks with one key piece of their own, and with two."""
    choices = replace(choices, block_tokens=own * SIZE, piece_tokens=SIZE)
    loaded, budgets = load(choices), choices.budgets()[0]
    item = Item(0, "text", TOKENS, tuple(tokens[0].tolist()), ())
    found = PromptRun(loaded, choices, {TOKENS: budgets}, select_for_budgets).measure(item)
    rows = draw(TOKENS, own * SIZE, ROWS, np.random.default_rng([0, TOKENS, 0]))
    positions, members = rows.position.tolist(), rows.member.tolist()
    blocks, config = rows.blocks.tolist(), loaded.model.config
    sliding = windows(config)
    assert any(sliding) == (family in ("mistral", "gemma2", "gemma3_text"))
    for layer, attention in enumerate(eager.attentions):
        window = sliding[layer]
        seen = 0
        if window is not None:
            earliest = [
                min(p for p, m in zip(positions, members, strict=True) if m == k)
                for k in range(len(blocks))
            ]
            seen = [max(0, p - window + 1) // SIZE for p in earliest]
        for head in range(4):
            mass = brute.piece_mass(attention[0, head].double().numpy(), positions, SIZE)
            wanted = [
                brute.oracle(mass, members, blocks, b, first_seen=seen, own=own) for b in budgets
            ]
            assert found["recovery"][layer, head] == pytest.approx(wanted, abs=2e-5)
            assert wanted[0] < 0.9, "the test needs heads that are not recovered at once"
            if window is not None:
                ends = [(blocks[member] + 1) * own for member in members]
                nearest = [
                    sum(mass[row, max(0, end - b) : end].sum() for row, end in enumerate(ends))
                    / len(members)
                    for b in budgets
                ]
                assert found["selected_recovery"][layer, head] == pytest.approx(nearest, abs=2e-5)
    # Where a window hides keys the selector takes the nearest, without the sink that the oracle
    # must hold: with two pieces of its own a query block's first other one may be worth more.
    held = [layer for layer, window in enumerate(sliding) if window is None or own == 1]
    assert (found["selected_recovery"] <= found["recovery"] + 1e-9)[held].all()
    assert found["recovery"][:, :, -1] == pytest.approx(1.0)


def test_what_the_selector_gets_are_the_models_own_logits(choices, tokens, eager) -> None:
    calls: list[LayerAttention] = []
    model = load(choices).model
    with torch.no_grad(), capture.watching(lambda call, _out: calls.append(call)):
        model(tokens)
    for call, attention in zip(calls, eager.attentions, strict=True):
        q = call.q.double() * call.scaling
        k = call.k.double().repeat_interleave(2, 0)
        logits = q @ k.transpose(1, 2)
        if call.softcap is not None:
            logits = call.softcap * torch.tanh(logits / call.softcap)
        place = torch.arange(TOKENS)
        hidden = place > place[:, None]
        if call.window is not None:
            hidden |= place <= place[:, None] - call.window
        maps = logits.masked_fill(hidden, -torch.inf).softmax(-1)
        assert torch.allclose(maps, attention[0].double(), atol=2e-5)
