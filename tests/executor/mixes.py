"""A hand-made Llama whose even heads look for one word, and two tasks that differ in where it is.

Its queries are the same everywhere, and the keys of `magnet` match them; positions are encoded too
slowly to be seen at these lengths. Odd heads look at everything alike, whatever the task.
"""

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from executor.attention.block_sparse import attend
from executor.attention.shares import HeadShare
from executor.attention.step import prepare
from executor.kernels.batch import Cache, Chunk
from executor.node.traffic import Traffic
from profiles.cost.work import Workload
from profiles.heads import CurvesForm
from profiles.model import ModelProfile
from profiles.tasks.prompts import Prompt, write

LAYERS, HEADS, KV_HEADS, DIM, WIDTH = 2, 4, 2, 16, 32
CONTEXT, BLOCK = 1024, 64
WORDS = ["pad", "magnet", *(f"w{n}" for n in range(30))]
SEEKING = (0, 2)
"""The heads that look for the magnet."""
STRENGTH = 8.0
"""Their logit of it; that of any other word is 0."""


def model(folder: Path) -> Path:
    """Write the model and its tokenizer, a word a token."""
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=DIM,
        max_position_embeddings=2 * CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 1e9},
    )
    torch.manual_seed(0)
    made = LlamaForCausalLM(config)
    slow = DIM // 2 - 1  # the slowest pair of dimensions turns by nothing worth mentioning
    with torch.no_grad():
        words = made.model.embed_tokens.weight.normal_(0, 1)
        words[:, 0] = 4.0
        words[:, 1] = 0.0
        words[1, 1] = 4.0
        for layer in made.model.layers:
            attention = layer.self_attn
            for weight in (attention.q_proj.weight, attention.k_proj.weight):
                weight.zero_()
            for head in SEEKING:
                attention.q_proj.weight[head * DIM + slow, 0] = 1.0
            for group in range(KV_HEADS):
                attention.k_proj.weight[group * DIM + slow, 1] = 1.0
            attention.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        # Behind the norm every word is of length sqrt(WIDTH): scale to the strength wanted.
        normed = words[1] / words[1].square().mean().sqrt()
        scale = STRENGTH * DIM**0.5 / (normed[0] * normed[1])
        for layer in made.model.layers:
            layer.self_attn.q_proj.weight.mul_(scale)
    made.save_pretrained(folder)
    known = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="pad"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


def easy(seed: int, words: int = CONTEXT) -> Prompt:
    """All magnets at the beginning: one block holds nearly all that a seeking head looks for."""
    return _prompt("easy", seed, words, range(16))


def hard(seed: int, words: int = CONTEXT) -> Prompt:
    """A magnet in every block."""
    return _prompt("hard", seed, words, range(seed % BLOCK, words, BLOCK))


def _prompt(task: str, seed: int, words: int, magnets: range) -> Prompt:
    random = np.random.default_rng(seed)
    text = [WORDS[2 + n] for n in random.integers(0, len(WORDS) - 2, words)]
    for place in magnets:
        text[place] = "magnet"
    return Prompt(text=" ".join(text), task=task)


def prompts(path: Path, *parts: list[Prompt]) -> Path:
    """A file of all parts one after another."""
    write(path, [prompt for part in parts for prompt in part])
    return path


def measured(folder: Path, on: list[Prompt]) -> ModelProfile:
    """What the executor's selector captures of each head, a mean over the prompts `on`."""
    traffic = Traffic(str(folder), on, "cpu")
    budgets = [BLOCK * count for count in (1, 2, 3, 4, 6, 9, 12, CONTEXT // BLOCK)]
    found = np.zeros((len(on), LAYERS, HEADS, len(budgets)))
    for number in range(len(on)):
        workload = Workload(CONTEXT, block_tokens=BLOCK)
        layers = traffic.next_round(traffic.architecture, workload, range(LAYERS))
        for layer, real in layers.items():
            cache = Cache(real.keys, real.values, starts=torch.zeros(1, dtype=torch.int32))
            for point, budget in enumerate(budgets):
                shares = [HeadShare(h, h * KV_HEADS // HEADS, budget) for h in range(HEADS)]
                step = prepare(shares, [Chunk(0, CONTEXT)], BLOCK)
                result = attend(real.q, cache, step, "torch", watched_rows=64)
                assert result.recovery is not None
                found[number, layer, :, point] = result.recovery.double().numpy()
    form = CurvesForm(
        context_tokens=[CONTEXT],
        budget_tokens=[budgets],
        recovery=np.maximum.accumulate(found.mean(0), -1)[:, :, None].tolist(),
        selected_recovery=found.mean(0)[:, :, None].tolist(),
        selected_spread=found.std(0)[:, :, None].tolist(),
    )
    return ModelProfile(
        name="magnets",
        architecture=traffic.architecture,
        heads=form,
        source=json.dumps({"tests": "mixes.measured", "prompts": len(on)}),
        synthetic=False,
    )
