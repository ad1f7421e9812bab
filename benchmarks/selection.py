"""How much attention mass chosen blocks recover, on synthetic heads with planted structure.

    python benchmarks/selection.py [--tokens 8192] [--seeds 0,1] [--json [FILE]]

Synthetic inputs throughout: one head of dimension 64 with planted columns, slashes, a local band,
sinks or needle blocks, and noise. At an equal number of 64 x 64 tiles: the oracle (each row of
blocks takes those with most mass), our block-pooled vertical-slash, the same scored by the last 64
rows, which are neighbours, our pooled scores, two sampled rows a query block, sink + local. Beside
them MInference's token lines (arXiv 2407.02490) that attend to no more query-key pairs than those
tiles hold, at the best of three divisions into columns and slashes, and how many tiles these lines
touch. Recovery is the mean over query rows of the dense softmax's mass on the chosen keys.
"""

import argparse
import time
from collections import defaultdict
from statistics import mean
from typing import Any

import torch

from benchmarks import report
from executor.attention.lists import lay_out
from executor.kernels.batch import Cache, Chunk
from executor.kernels.layout import ALL_PIECES, HeadBlocks
from executor.kernels.patterns import Pattern, Pooled, Rule, Sampled, VerticalSlash
from executor.kernels.select import select
from executor.kernels.torch.select import best_pieces

Row = dict[str, Any]
BLOCK, DIM = 64, 64
WAVES, NEEDLES = 16, 6
"""Dimensions for distances come in pairs, one for columns, then one for each needle, the rest is
noise."""
BUDGETS = (4, 8, 16, 32)
SCORED_ROWS, FORCED_COLUMNS, FORCED_SLASHES = 64, 30, 100
"""MInference's estimate looks at so many last rows and always keeps so many first keys and nearest
distances."""
COLUMN_SHARES = (0.125, 0.5, 0.875)
OURS: dict[str, Pattern] = {
    "vertical-slash": VerticalSlash(),
    "last 64 rows": VerticalSlash(SCORED_ROWS, row_step=1),
    "pooled": Pooled(),
    "sampled": Sampled(rows=2),
    "sink + local": Rule.sink_local(),
}
HEADS = {
    "columns": {"columns": 24, "slashes": 0, "needles": 0},
    "slashes": {"columns": 0, "slashes": 5, "needles": 0},
    "columns + slashes": {"columns": 12, "slashes": 3, "needles": 0},
    "needles": {"columns": 0, "slashes": 0, "needles": NEEDLES},
    "all": {"columns": 12, "slashes": 3, "needles": NEEDLES},
}


def planted(
    seed: int, tokens: int, columns: int, slashes: int, needles: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """q and k [tokens, DIM] whose scaled product has noise, sinks, a local band and what is asked.

    A needle is a key block that a tenth of the query blocks looks for.
    """
    random = torch.Generator().manual_seed(seed)
    q, k = 0.7 * torch.randn(2, tokens, DIM, generator=random)
    position = torch.arange(tokens, dtype=torch.float64)[:, None]
    frequency = torch.logspace(0.2, -3.2, WAVES, dtype=torch.float64)

    def waves(shift: int) -> torch.Tensor:
        angle = (position + shift) * frequency
        return torch.cat([angle.cos(), angle.sin()], 1).float()

    def drawn(count: int, most: int) -> list[int]:
        return torch.randperm(most, generator=random)[:count].tolist()

    logit = DIM**0.5
    near = [0, *[BLOCK + shift for shift in drawn(slashes, tokens // 2)]]
    q[:, : 2 * WAVES] = waves(0) * logit * 9 / WAVES
    k[:, : 2 * WAVES] = sum((waves(shift) for shift in near), torch.zeros(tokens, 2 * WAVES))
    q[:, 2 * WAVES], k[:, 2 * WAVES] = logit, 0.0
    k[:4, 2 * WAVES] = 8.0
    k[drawn(columns, tokens), 2 * WAVES] = 8.0
    blocks = tokens // BLOCK
    for number in range(needles):
        dim = 2 * WAVES + 1 + number
        q[:, dim] = k[:, dim] = 0.0
        [needle] = drawn(1, blocks // 2)
        k[needle * BLOCK : (needle + 1) * BLOCK, dim] = 6.0
        for block in drawn(blocks // 10, blocks):
            q[block * BLOCK : (block + 1) * BLOCK, dim] = logit
    return q, k


def softmax(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Dense causal attention weights [tokens, tokens]."""
    weights = torch.zeros(len(q), len(k))
    for begin in range(0, len(q), BLOCK):
        end = begin + BLOCK
        scores = (q[begin:end] @ k[:end].T).mul_(DIM**-0.5)
        future = torch.ones(BLOCK, BLOCK, dtype=torch.bool).triu_(1)
        scores[:, begin:].masked_fill_(future, -torch.inf)
        torch.softmax(scores, 1, out=weights[begin:end, :end])
    return weights


def block_masses(weights: torch.Tensor) -> torch.Tensor:
    """Mass of every tile [query blocks, key blocks], as a share of all rows' mass."""
    blocks = len(weights) // BLOCK
    return weights.view(blocks, BLOCK, blocks, BLOCK).sum((1, 3)) / len(weights)


def oracle(masses: torch.Tensor, budget: int) -> float:
    """Recovery of the best `budget` blocks of every row of blocks, first and own always in."""
    row = torch.arange(len(masses))
    dense = float(masses[:budget].sum())
    found = best_pieces(masses[budget:].clone(), row[budget:], row[budget:], budget)
    return dense + float(masses[budget:].gather(1, found.long()).sum())


def ours(
    q: torch.Tensor, k: torch.Tensor, masses: torch.Tensor, budget: int, pattern: Pattern
) -> tuple[float, int]:
    """Recovery and tiles of the lists that `select` makes."""
    cache = Cache(k[None], k[None], starts=torch.zeros(1, dtype=torch.int32))
    heads = [HeadBlocks(0, 0, budget, 0, len(masses), 0, pattern)]
    layout = lay_out(heads, [Chunk(0, len(k))], BLOCK)
    indices = select(q[None], cache, layout).long()
    stored = layout.start != ALL_PIECES
    row = layout.query_block[stored].repeat_interleave(layout.length[stored])
    dense = masses[layout.query_block[~stored].long()].sum()
    return float(dense + masses[row.long(), indices].sum()), layout.tiles


class TokenLines:
    """MInference's vertical-slash: whole columns of keys and whole diagonals of distances."""

    def __init__(self, weights: torch.Tensor) -> None:
        self.weights, self.tokens = weights, len(weights)
        self.column_mass = weights.sum(0)
        self.slash_mass = self._by_distance(weights, 0)
        last = weights[-SCORED_ROWS:]
        columns = last.sum(0)
        slashes = self._by_distance(last, self.tokens - SCORED_ROWS)
        columns[:FORCED_COLUMNS] = slashes[:FORCED_SLASHES] = torch.inf
        self.columns, self.slashes = (
            columns.argsort(descending=True),
            slashes.argsort(descending=True),
        )

    @staticmethod
    def _by_distance(rows: torch.Tensor, first: int) -> torch.Tensor:
        """Mass by distance between query and key; `rows` are those of queries `first`, ..."""
        mass = torch.zeros(rows.shape[1])
        for number, row in enumerate(rows, start=first + 1):
            mass[:number] += row[:number].flip(0)
        return mass

    def within(self, pairs: int, column_share: float) -> tuple[float, int, int]:
        """Recovery, attended pairs and touched tiles of as many lines as `pairs` allow.

        The lines beyond the forced ones are columns by `column_share`.
        """
        least, most = 0, 2 * self.tokens
        while least < most:
            middle = (least + most + 1) // 2
            if self._pairs(*self._lines(middle, column_share)) <= pairs:
                least = middle
            else:
                most = middle - 1
        columns, slashes = self._lines(least, column_share)
        both = columns[:, None] + slashes
        real = both < self.tokens
        overlap = self.weights[both.clamp(max=self.tokens - 1), columns[:, None]][real].sum()
        mass = self.column_mass[columns].sum() + self.slash_mass[slashes].sum() - overlap
        touched = self._touched(columns, slashes)
        return float(mass) / self.tokens, self._pairs(columns, slashes), touched

    def _lines(self, count: int, column_share: float) -> tuple[torch.Tensor, torch.Tensor]:
        columns = FORCED_COLUMNS + round(count * column_share)
        slashes = FORCED_SLASHES + count - round(count * column_share)
        return self.columns[:columns].sort().values, self.slashes[:slashes].sort().values

    def _pairs(self, columns: torch.Tensor, slashes: torch.Tensor) -> int:
        lines = (self.tokens - columns).sum() + (self.tokens - slashes).sum()
        return int(lines - torch.searchsorted(columns, self.tokens - slashes).sum())

    def _touched(self, columns: torch.Tensor, slashes: torch.Tensor) -> int:
        """A slash that does not begin with a block's first token touches two block diagonals."""
        blocks = self.tokens // BLOCK
        column, diagonal = torch.zeros(2, blocks + 1, dtype=torch.bool)
        column[columns // BLOCK] = True
        diagonal[slashes // BLOCK] = diagonal[-(-slashes // BLOCK)] = True
        distance = torch.arange(blocks)[:, None] - torch.arange(blocks)
        return int(((column[:blocks] | diagonal[distance.clamp(min=0)]) & (distance >= 0)).sum())


def causal_pairs(budget: int, tokens: int) -> int:
    """Query-key pairs in the tiles of a budget: of a row's own tile those before its queries."""
    tiles = sum(min(budget, row + 1) for row in range(tokens // BLOCK))
    return tiles * BLOCK**2 - tokens // BLOCK * BLOCK * (BLOCK - 1) // 2


def findings(name: str, seed: int, tokens: int) -> list[Row]:
    """Every budget's row for one planted head."""
    q, k = planted(seed, tokens, **HEADS[name])
    weights = softmax(q, k)
    masses, lines, rows = block_masses(weights), TokenLines(weights), []
    for budget in BUDGETS:
        pairs = causal_pairs(budget, tokens)
        found = {p: ours(q, k, masses, budget, pattern) for p, pattern in OURS.items()}
        [tiles] = {count for _, count in found.values()}
        recovery, attended, touched = max(lines.within(pairs, s) for s in COLUMN_SHARES)
        rows.append(
            {
                "head": name,
                "seed": seed,
                "tokens": tokens,
                "budget_blocks": budget,
                "tiles": tiles,
                "oracle": oracle(masses, budget),
                **{pattern: share for pattern, (share, _) in found.items()},
                "token lines": recovery,
                "token_line_pairs": attended,
                "tile_pairs": pairs,
                "token_line_tiles": touched,
            }
        )
    return rows


def summarised(rows: list[Row]) -> list[Row]:
    """Means over seeds, for every head and budget."""
    cases: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        cases[row["head"], row["budget_blocks"]].append(row)
    shares = ("oracle", *OURS, "token lines")
    return [
        {
            "head": head,
            "budget_blocks": budget,
            **{share: mean(row[share] for row in case) for share in shares},
            "touched_over_tiles": mean(row["token_line_tiles"] / row["tiles"] for row in case),
        }
        for (head, budget), case in cases.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--seeds", default="0,1")
    arguments = report.arguments(parser)
    if arguments.tokens % BLOCK or arguments.tokens <= BLOCK * max(BUDGETS):
        parser.error(f"--tokens: whole blocks of {BLOCK}, more than {max(BUDGETS)} of them")
    started = time.perf_counter()
    seeds = [int(part) for part in arguments.seeds.split(",")]
    rows = [r for name in HEADS for s in seeds for r in findings(name, s, arguments.tokens)]
    summary, table = summarised(rows), report.table_to(arguments.json)
    shares = ("oracle", *OURS, "token lines")
    print("recovery on synthetic inputs; means over seeds", file=table)
    print(f"{'head':18} blocks " + " ".join(f"{s:>14}" for s in shares) + "  touch", file=table)
    for row in summary:
        recovered = " ".join(f"{row[share]:14.3f}" for share in shares)
        print(
            f"{row['head']:18} {row['budget_blocks']:6} {recovered} "
            f"{row['touched_over_tiles']:5.1f}x tiles",
            file=table,
        )
    report.deliver(
        arguments.json,
        note="synthetic inputs: planted structure and noise, no model's attention",
        seconds=time.perf_counter() - started,
        summary=summary,
        rows=rows,
    )


if __name__ == "__main__":
    main()
