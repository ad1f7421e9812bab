"""What a list's granularity costs in quality: the same pairs in blocks and in pieces of keys.

python benchmarks/pieces.py [--model reference] [--context 2048] [--windows 6] [--text FILE]

Every head has the same budget, chosen by the executor's own selector (`--rows` sampled rows a query
block) and computed by the executor's own attention. Budgets differ between sizes so that all
compute the same (query, key) pairs, the diagonal counted whole. Loss is the mean negative
log-likelihood of each window's last tokens, over that of dense attention on the same window;
intervals are 95 %, over windows.
"""

import argparse
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks.report import arguments, deliver, table_to
from executor.evaluation.loaded import load
from executor.evaluation.scoring import surprise
from executor.evaluation.texts import scored_tokens, windows
from executor.inference.budget_policy import BudgetPolicy
from profiles.selection import Sampled
from profiles.sizes import causal_pieces

SIZES = ((64, 64), (64, 16), (16, 16), (128, 64), (128, 16))
"""Query rows that share a list, and the keys that it names."""
BUDGETS = (2, 3, 6, 9)
"""Blocks of 64 x 64: at 2,048 tokens 11.9, 17.6, 33.5 and 47.7 % of dense attention's pairs."""


@dataclass(frozen=True)
class Setting:
    """One size within the pairs that a budget of so many 64 x 64 `blocks` computes."""

    block: int
    piece: int
    blocks: int
    context: int

    def pairs(self, pieces: int) -> int:
        """(query, key) token pairs of a head with a budget of `pieces`."""
        rows, own = -(-self.context // self.block), self.block // self.piece
        return self.block * self.piece * causal_pieces(pieces, rows, own)

    @property
    def pieces(self) -> int:
        """The largest budget within the pairs: at least a query block's own, at most all."""
        wanted = 64 * 64 * causal_pieces(self.blocks, -(-self.context // 64))
        every, own = self.context // self.piece, self.block // self.piece
        fitting = [p for p in range(own, every + 1) if self.pairs(p) <= wanted]
        return max(fitting, default=own)


def losses(model, texts, setting: Setting, rows: int, layers: int, heads: int) -> list[float]:
    """Nats a token of every window; `rows` are sampled of every query block."""
    tokens = [[setting.pieces * setting.piece] * heads] * layers
    policy = BudgetPolicy(
        tokens,
        selection=Sampled(rows=rows),
        block_tokens=setting.block,
        piece_tokens=setting.piece,
    )
    return [loss(model, text, policy) for text in texts]


def loss(model, text, policy) -> float:
    return surprise(model, text, scored_tokens(len(text)), policy, 64)[0]


def half_interval(values: np.ndarray) -> float:
    """Half of the 95 % interval of the mean of values [samples] (Student's t)."""
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


def row(
    setting: Setting, beyond: np.ndarray, of_blocks: np.ndarray | None, pairs: int
) -> dict[str, float | int]:
    """Loss over dense `beyond` [windows], and beside that of 64 x 64 on the same windows."""
    paired = {}
    if of_blocks is not None:
        less = beyond - of_blocks
        paired = {"over_blocks": float(less.mean()), "over_blocks_half": half_interval(less)}
    return paired | {
        "block_tokens": setting.block,
        "piece_tokens": setting.piece,
        "budget_tokens": setting.pieces * setting.piece,
        "pairs_of_dense": setting.pairs(setting.pieces) / pairs,
        "loss_over_dense": float(beyond.mean()),
        "half_interval": half_interval(beyond),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="reference")
    parser.add_argument("--context", type=int, default=2048, help="tokens, a multiple of 128")
    parser.add_argument("--windows", type=int, default=6)
    parser.add_argument("--text", type=Path, help="held-out text; default: what is shipped")
    parser.add_argument(
        "--budgets", default=",".join(map(str, BUDGETS)), help="in blocks of 64 x 64"
    )
    parser.add_argument("--sizes", default=",".join(f"{b}x{p}" for b, p in SIZES))
    parser.add_argument("--rows", type=int, default=2, help="sampled of a query block")
    chosen = arguments(parser)
    sizes = [tuple(map(int, size.split("x"))) for size in chosen.sizes.split(",")]
    loaded = load(chosen.model)
    config = loaded.model.config.get_text_config()
    shape = (config.num_hidden_layers, config.num_attention_heads)
    texts = windows(chosen.text, loaded.tokenizer, chosen.context, chosen.windows)
    dense = np.array([loss(loaded.model, text, None) for text in texts])
    rows: list[dict[str, float | int]] = []
    of_blocks: dict[int, np.ndarray] = {}
    every = Setting(64, 64, chosen.context // 64, chosen.context)
    for blocks, (block, piece) in product(map(int, chosen.budgets.split(",")), sizes):
        setting = Setting(block, piece, blocks, chosen.context)
        beyond = np.array(losses(loaded.model, texts, setting, chosen.rows, *shape)) - dense
        if (block, piece) == (64, 64):
            of_blocks[blocks] = beyond
        found = row(setting, beyond, of_blocks.get(blocks), every.pairs(every.pieces))
        rows.append({"blocks": blocks, **found})
        print(f"{blocks} blocks, {block} x {piece}: done", file=sys.stderr, flush=True)
    table = Table(title=f"{chosen.model}, {chosen.context} tokens, {len(texts)} windows")
    for name in (
        "pairs of dense",
        "size",
        "budget, tokens",
        "loss over dense, nats",
        "less 64 x 64",
    ):
        table.add_column(name)
    for each in rows:
        table.add_row(
            f"{100 * each['pairs_of_dense']:.1f} %",
            f"{each['block_tokens']} x {each['piece_tokens']}",
            str(each["budget_tokens"]),
            f"{each['loss_over_dense']:+.3f} ± {each['half_interval']:.3f}",
            f"{each['over_blocks']:+.3f} ± {each['over_blocks_half']:.3f}"
            if "over_blocks" in each
            else "",
        )
    Console(file=table_to(chosen.json), width=100).print(table)
    deliver(
        chosen.json,
        model=chosen.model,
        weights_sha256=loaded.weights_sha256,
        context_tokens=chosen.context,
        windows=len(texts),
        sampled_rows=chosen.rows,
        dense_loss=float(dense.mean()),
        rows=rows,
    )


if __name__ == "__main__":
    main()
