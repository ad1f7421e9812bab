"""Decoding through transformers on a CPU: seconds a token beside PyTorch's dense attention.

    python benchmarks/decode_cpu.py [--model FOLDER] [--rounds 24] [--quick] [--json [FILE]]

A model continues 4,096 tokens, in every round by one token in each way: dense SDPA with
transformers' static and with its dynamic cache; our kernels, a fifth of the pieces listed, with
`GrowingCache`, also as where there is no C++ compiler, and with the dynamic one. `attention_s` are
the caches' updates and the attention functions of all layers, `token_s` the whole forward pass, in
CPU seconds of one thread. Without --model the model has SmolLM2-135M's shape and random weights.
--quick: a tiny model, 96 tokens, two rounds.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from statistics import median
from typing import Any
from unittest import mock

import torch
import transformers
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    StaticCache,
)

from benchmarks import report
from benchmarks.cpu_attention import spread
from executor.engines.transformers import interface
from executor.engines.transformers.attach import attached
from executor.engines.transformers.cache import GrowingCache
from executor.inference.budget_policy import BudgetPolicy
from executor.kernels.torch import compiled

SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
TINY = {**SMOLLM2, "hidden_size": 72, "intermediate_size": 96, "num_hidden_layers": 2}
UNIFORM, UNEQUAL = (0.2, 0.2, 0.2), (0.05, 0.15, 0.4)
"""Shares of the context that the heads of a KV group may attend to, group after group."""
STATIC, GROWING = "SDPA, static cache", "HPLB, growing cache"
LIMIT = 0.4
"""The aim: attention's seconds over those of SDPA with a static cache."""


class Stopwatch:
    """CPU seconds within the functions that it was given."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timing(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.process_time()
            result = work(*arguments, **options)
            self.seconds += time.process_time() - started
            return result

        return timed


@dataclass
class Way:
    """How to decode, and the CPU seconds that each token took."""

    name: str
    cache: Cache
    policy: BudgetPolicy | None = None
    is_compiled: bool = True
    attention_s: list[float] = field(default_factory=list)
    token_s: list[float] = field(default_factory=list)


def budgets(model: PreTrainedModel, tokens: int, shares: tuple[float, ...]) -> BudgetPolicy:
    config = model.config
    size = config.num_attention_heads // config.num_key_value_heads
    heads = [max(1, round(tokens * share)) for share in shares for _ in range(size)]
    return BudgetPolicy([heads] * config.num_hidden_layers)


def ways(model: PreTrainedModel, tokens: int, rounds: int) -> list[Way]:
    config = model.config
    uniform, unequal = (budgets(model, tokens, shares) for shares in (UNIFORM, UNEQUAL))
    return [
        Way(STATIC, StaticCache(config, max_cache_len=tokens + rounds + 1)),
        Way("SDPA, dynamic cache", DynamicCache(config=config)),
        Way(GROWING, GrowingCache(config), uniform),
        Way(f"{GROWING}, unequal budgets", GrowingCache(config), unequal),
        Way(f"{GROWING}, no compiler", GrowingCache(config), uniform, is_compiled=False),
        Way("HPLB, dynamic cache", DynamicCache(config=config), uniform),
    ]


@contextmanager
def decoding(model: PreTrainedModel, way: Way) -> Iterator[None]:
    """The model decodes this way within."""
    library = compiled.library() if way.is_compiled else None
    with (
        mock.patch.object(compiled, "library", return_value=library),
        nullcontext() if way.policy is None else attached(model, way.policy),
    ):
        yield


@contextmanager
def watched(caches: list[Cache]) -> Iterator[Stopwatch]:
    """Attention functions and the caches' updates are timed within."""
    watch = Stopwatch()
    dense = AttentionInterface()["sdpa"]
    for cache in caches:
        cache.update = watch.timing(cache.update)
    AttentionInterface.register("sdpa", watch.timing(dense))
    AttentionInterface.register(interface.NAME, watch.timing(interface.attention))
    try:
        yield watch
    finally:
        AttentionInterface.register("sdpa", dense)
        AttentionInterface.register(interface.NAME, interface.attention)


def measure(model: PreTrainedModel, tokens: int, rounds: int) -> list[Way]:
    """Every way's seconds, a token of each in turn; the first is for warmth alone."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(1, model.config.vocab_size, (1, tokens + rounds + 1), generator=draw)
    prompt = model(ids[:, :tokens], use_cache=True, logits_to_keep=1).past_key_values
    contenders = ways(model, tokens, rounds)
    for way in contenders:
        for number, layer in enumerate(prompt.layers):
            way.cache.update(layer.keys, layer.values, number)
    del prompt
    with watched([way.cache for way in contenders]) as watch:
        for at in range(tokens, tokens + rounds + 1):
            for way in contenders:
                with decoding(model, way):
                    watch.seconds, started = 0.0, time.process_time()
                    model(ids[:, at : at + 1], past_key_values=way.cache)
                    if at > tokens:
                        way.token_s.append(time.process_time() - started)
                        way.attention_s.append(watch.seconds)
    return contenders


def row(way: Way, static: Way) -> dict[str, Any]:
    def over(ours: list[float], theirs: list[float]) -> dict[str, float]:
        return spread([a / b for a, b in zip(ours, theirs, strict=True)])

    return {
        "way": way.name,
        "attention_s": spread(way.attention_s),
        "token_s": spread(way.token_s),
        "tokens_per_cpu_s": 1 / median(way.token_s),
        "attention_over_static": over(way.attention_s, static.attention_s),
        "token_over_static": over(way.token_s, static.token_s),
    }


def line(found: dict[str, Any]) -> str:
    attention, ratio = found["attention_s"], found["attention_over_static"]
    return (
        f"{found['way']:38} attention {1e3 * attention['median']:6.1f} ms a token "
        f"({1e3 * attention['least']:.1f} to {1e3 * attention['most']:.1f}), "
        f"{ratio['median']:.2f} x static ({ratio['least']:.2f} to {ratio['most']:.2f}); "
        f"{found['tokens_per_cpu_s']:5.2f} tokens a CPU second"
    )


def loaded(folder: str | None, quick: bool) -> PreTrainedModel:
    if folder is not None:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    else:
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**(TINY if quick else SMOLLM2)))
    model.set_attn_implementation("sdpa")
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", metavar="FOLDER", help="a causal model, three KV groups a layer")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--quick", action="store_true", help="a tiny model, two rounds")
    arguments = report.arguments(parser)
    table = report.table_to(arguments.json)
    tokens, rounds = (96, 2) if arguments.quick else (4096, arguments.rounds)
    load, before = os.getloadavg()[0], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            contenders = measure(loaded(arguments.model, arguments.quick), tokens, rounds)
    finally:
        torch.set_num_threads(before)
    rows = [row(way, contenders[0]) for way in contenders]
    for found in rows:
        print(line(found), file=table)
    ours = next(found for found in rows if found["way"] == GROWING)
    report.deliver(
        arguments.json,
        note="random tokens; one thread; a fifth of the context listed in every head",
        torch=torch.__version__,
        transformers=transformers.__version__,
        context_tokens=tokens,
        rounds=rounds,
        unequal=", ".join(f"{share:.0%}" for share in UNEQUAL),
        load_before_and_after=[load, os.getloadavg()[0]],
        summary={
            "limit": LIMIT,
            "attention_met": ours["attention_over_static"]["median"] <= LIMIT,
            "tokens_met": ours["token_over_static"]["median"] <= 1,
        },
        rows=rows,
    )


if __name__ == "__main__":
    main()
