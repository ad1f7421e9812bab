"""What adding up heads' errors hides: `python -m benchmarks.cross_head`.

    python -m benchmarks.cross_head [--documents 4] [--threads N] [--json FILE]

`least_error` takes the errors of different heads to be independent: it adds up their squares
(`solver.budgets.least_error`). Here every layer of SmolLM2-135M reads what dense attention gave it,
and attends within budgets beside: the squared error of a layer's output, all its heads together,
over the sum of its heads' own squared errors. 1 where they are independent; above where heads err
in one direction, below where they cancel. Over the last min(1024, context / 2) tokens of held-out
documents of `benchmarks.real_model`, 2,048 tokens, 64 x 16, uniform and least-error budgets.
"""

import argparse
from collections import defaultdict
from typing import Any

import numpy as np
import torch

from benchmarks import report
from benchmarks.real_model.__main__ import BLOCKS, MODEL, PIECES, profile_of
from benchmarks.real_model.documents import held_out
from benchmarks.real_model.policies import chosen, share_of
from executor.evaluation.loaded import load
from executor.evaluation.scoring import logits_at_once
from executor.evaluation.texts import scored_tokens
from executor.inference.dense_policy import DensePolicy
from executor.inference.policy import Attended, LayerCall, Policy
from profiles.fetched import cache_folder
from profiles.measuring.residual_stream import output_weight

CONTEXT = 2048
POLICIES = ("uniform", "least_error_model")


class Together:
    """A policy: dense attention, and beside it what each of `others` does to a layer's output.

    `ratios` by name: of every call the heads' squared error together over the sum of their own.
    """

    def __init__(self, model: Any, others: dict[str, Policy]) -> None:
        self._dense = DensePolicy()
        self._others = others
        self._weights = [output_weight(layer.self_attn) for layer in model.model.layers]
        self.ratios: dict[str, list[float]] = defaultdict(list)

    def attend(self, call: LayerCall) -> Attended:
        """Dense attention of one layer's call."""
        dense = self._dense.attend(call)
        heads, tokens, size = call.q.shape
        weight = self._weights[call.layer]
        assert weight is not None
        of_heads = weight.T.reshape(heads, size, -1)
        scored = slice(tokens - scored_tokens(tokens), None)
        for name, policy in self._others.items():
            error = (policy.attend(call).out - dense.out)[:, scored]
            moved = error @ of_heads
            apart = moved.square().sum()
            together = moved.sum(0).square().sum()
            self.ratios[name].append(float(together / apart))
        return dense


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--documents", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = report.arguments(parser)
    torch.set_num_threads(asked.threads)
    cache = cache_folder() / "texts"
    loaded = load(MODEL)
    profile = profile_of(PIECES, CONTEXT, cache)
    names = [(policy, blocks) for blocks in BLOCKS[CONTEXT] for policy in POLICIES]
    others = {
        f"{policy} {blocks}": chosen(policy, profile, PIECES, CONTEXT, blocks).policy
        for policy, blocks in names
    }
    ratios: dict[str, list[list[float]]] = defaultdict(list)
    for document in held_out(cache)[: asked.documents]:
        ids = tuple(loaded.tokenizer(document.text, verbose=False)["input_ids"][:CONTEXT])
        watching = Together(loaded.model, others)
        logits_at_once(loaded.model, ids, (len(ids) - 1,), watching, PIECES.block)
        for name, of_layers in watching.ratios.items():
            ratios[name].append(of_layers)
    lines = [
        {
            "policy": policy,
            "share": share_of(blocks, CONTEXT),
            **_line(ratios[f"{policy} {blocks}"]),
        }
        for policy, blocks in names
    ]
    for line in lines:
        low, high = line["least"], line["most"]
        print(
            f"{line['policy']:18} {100 * line['share']:.1f} % of pairs: together over apart "
            f"{line['median']:.2f} (layers {low:.2f} to {high:.2f})",
            file=report.table_to(asked.json),
        )
    report.deliver(asked.json, context=CONTEXT, documents=asked.documents, lines=lines)


def _line(ratios: list[list[float]]) -> dict[str, float]:
    """Of ratios [documents, layers]: means over documents, then over the layers."""
    layers = np.array(ratios).mean(axis=0)
    return {
        "median": float(np.median(layers)),
        "least": float(layers.min()),
        "most": float(layers.max()),
    }


if __name__ == "__main__":
    main()
