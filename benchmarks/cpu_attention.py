"""The torch back end against PyTorch: seconds per computed block, at several budgets.

    python benchmarks/cpu_attention.py [--selected] [--rounds 5] [--quick] [--json [FILE]]

Causal prefill of two heads x 8,192 tokens that share their K/V; lists of blocks drawn by chance, so
that neighbours are rare. Taking turns with it in one process: PyTorch's scaled dot product
attention (dense), and FlexAttention (the same blocks; fp32 and head_dim 128 only). A ratio is our
seconds per tile over theirs in the same round; medians over the rounds with the least and the most.
One thread is timed in CPU seconds, two by the clock. --quick: tiny shapes, one round, FlexAttention
not compiled.

--selected: one thread's seconds of choosing the lists and of computing them, over the same dense
attention's, at shares of its tiles: selection by 2 and by 8 sampled rows a block (8 unless told),
blocks of 64, pieces of 64 and of 16, fp32. Aims: selection 0.06, both together 0.20, 0.30 and 0.42
at 10, 20 and 30 %, and never above dense: heads of nearly all tiles have every one. Rows `gathered`
are of the same lists gathered all the same, which says from where on that is no slower.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import report
from executor.attention.backends import DENSE_FROM
from executor.attention.lists import lay_out
from executor.attention.shares import HeadShare
from executor.attention.step import prepare
from executor.kernels.batch import Cache, Chunk
from executor.kernels.layout import ALL_PIECES, HeadBlocks, Layout
from executor.kernels.patterns import Sampled
from executor.kernels.select import select
from executor.kernels.torch.prefill import prefill_attention
from profiles.sizes import causal_pieces

Row = dict[str, Any]
Work = Callable[[], object]
HEADS = 2
LIMIT, LEAST_BLOCK = 1.5, 64
"""The aim: our seconds per tile over SDPA's, for blocks of at least so many tokens."""
FLEX_BUDGETS = (1.0, 0.25, 0.1)
SELECTION_AIM = 0.06
SAMPLED_ROWS = (2, 8)
"""Of a block: the products of 8 alone are 6 % of dense attention's."""
AIMS = {0.1: 0.20, 0.2: 0.30, 0.3: 0.42, 0.5: 1.0, 0.7: 1.0, 0.9: 1.0}
"""Of dense attention's seconds, selection included, by the share of its tiles."""
GATHERED = (0.75, 0.8, 0.85, 0.9)


@dataclass(frozen=True)
class Case:
    tokens: int
    head_dim: int
    blocks: tuple[int, ...]
    dtype: torch.dtype
    budgets: tuple[float, ...] = (1.0, 0.5, 0.25, 0.1, 0.05)
    flex: bool = False


FULL = (
    Case(8192, 128, (64, 128), torch.float32, flex=True),
    Case(8192, 64, (64, 128), torch.float32),
    Case(8192, 128, (64, 128), torch.bfloat16),
    Case(8192, 64, (64, 128), torch.bfloat16),
    Case(8192, 128, (16, 32), torch.float32, (0.25,)),
)
QUICK = (Case(256, 16, (16, 64), torch.float32, (1.0, 0.25), flex=True),)


def lists_by_chance(layout: Layout) -> torch.Tensor:
    """The first block, a row's own, and others drawn by chance."""
    random = torch.Generator().manual_seed(0)
    lists = [torch.empty(0, dtype=torch.int64)]
    for row, length, start in zip(
        layout.query_block.tolist(), layout.length.tolist(), layout.start.tolist(), strict=True
    ):
        if start != ALL_PIECES:
            score = torch.rand(row + 1, generator=random)
            score[0] = score[row] = 2.0
            lists.append(score.topk(length).indices.sort().values)
    return torch.cat(lists).int()


def block_mask(layout: Layout, indices: torch.Tensor, tokens: int) -> BlockMask:
    """The same lists for FlexAttention: full blocks, and each row's own under the causal mask."""
    rows = tokens // layout.block_tokens
    full = torch.zeros(1, HEADS, rows, rows, dtype=torch.int32)
    for number in range(layout.lists):
        start, length = int(layout.start[number]), int(layout.length[number])
        chosen = indices[start : start + length] if start >= 0 else torch.arange(length)
        full[0, number // rows, number % rows, : length - 1] = chosen[:-1]
    own = torch.zeros_like(full)
    own[..., 0] = torch.arange(rows)
    full_count = layout.length.view(1, HEADS, rows) - 1
    return BlockMask.from_kv_blocks(
        torch.ones_like(full_count),
        own,
        full_count,
        full,
        BLOCK_SIZE=layout.block_tokens,
        mask_mod=lambda _batch, _head, query, key: query >= key,
        seq_lengths=(tokens, tokens),
    )


def contenders(case: Case, compiled: bool) -> tuple[dict[str, Work], list[Row]]:
    """What takes turns, by name, and a row for each of our runs, with the names of its rivals."""
    shape = (HEADS, case.tokens, case.head_dim)
    q, keys, values = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    q, keys, values = (x.to(case.dtype) for x in (q, keys[:1], values[:1]))
    cache = Cache(keys, values, starts=torch.zeros(1, dtype=torch.int32))
    shared = [x.expand(1, *shape) for x in (keys, values)]
    out, lse = torch.empty_like(q), torch.empty(shape[:2])
    works: dict[str, Work] = {
        "dense": lambda: scaled_dot_product_attention(q[None], *shared, is_causal=True)
    }
    flex = flex_attention
    if compiled:
        torch.compiler.reset()  # The number of threads is compiled in.
        flex = torch.compile(flex_attention, dynamic=False)
    rows: list[Row] = []
    for block in case.blocks:
        blocks = case.tokens // block
        for budget in case.budgets:
            heads = [
                HeadBlocks(h, 0, max(1, round(budget * blocks)), 0, blocks) for h in range(HEADS)
            ]
            layout = lay_out(heads, [Chunk(0, case.tokens)], block)
            indices = lists_by_chance(layout)
            name = f"blocks of {block}, budget {budget:4.0%}"
            works[name] = lambda a=layout, b=indices: prefill_attention(q, cache, a, b, out, lse)
            row = {"case": name, "block_tokens": block, "budget": budget, "tiles": layout.tiles}
            row["density"] = layout.tiles / (HEADS * blocks * (blocks + 1) / 2)
            if case.flex and budget in FLEX_BUDGETS:
                mask = block_mask(layout, indices, case.tokens)
                row["flex"] = f"flex, {name}"
                copies = [x.contiguous() for x in shared]
                works[row["flex"]] = lambda m=mask, c=copies: flex(q[None], *c, block_mask=m)
            rows.append(row)
    return works, rows


def usable(works: dict[str, Work]) -> dict[str, str]:
    """Runs everything once, drops FlexAttention where it fails; what it said, by name."""
    failures = {}
    for name, work in list(works.items()):
        try:
            work()
        except Exception as error:
            if not name.startswith("flex"):
                raise
            failures[name] = f"{type(error).__name__}: {str(error).strip()[:300]}"
            del works[name]
    return failures


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "least": min(values), "most": max(values)}


def measure(case: Case, threads: int, rounds: int, compiled: bool) -> list[Row]:
    """All of a case's rows, timed in turns."""
    clock = time.process_time if threads == 1 else time.perf_counter
    works, rows = contenders(case, compiled)
    failures = usable(works)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            started = clock()
            work()
            seconds[name].append(clock() - started)
    full = {row["block_tokens"]: seconds[row["case"]] for row in rows if row["budget"] == 1.0}
    for row in rows:
        ours, density, rival = seconds[row["case"]], row["density"], row.pop("flex", None)

        def over(theirs: list[float], share: float, ours: list[float] = ours) -> dict[str, float]:
            return spread([a / (b * share) for a, b in zip(ours, theirs, strict=True)])

        row |= {
            "threads": threads,
            "dtype": str(case.dtype).removeprefix("torch."),
            "head_dim": case.head_dim,
            "tokens": case.tokens,
            "seconds": spread(ours),
            "sdpa_seconds": spread(seconds["dense"]),
            "ratio": over(seconds["dense"], density),
        }
        if row["block_tokens"] >= LEAST_BLOCK:
            row["met"] = row["ratio"]["median"] <= LIMIT
        if row["block_tokens"] in full:
            row["of_our_dense"] = over(full[row["block_tokens"]], density)
        if rival in seconds:
            row["flex_ratio"] = over(seconds[rival], 1.0)
        elif rival:
            row["flex_failure"] = failures[rival]
    return rows


def measure_selected(tokens: int, head_dim: int, rounds: int) -> list[Row]:
    """Selection and attention over its lists, timed in turns with dense attention."""
    block, blocks = 64, tokens // 64
    shape = (HEADS, tokens, head_dim)
    q, keys, values = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    cache = Cache(keys[:1], values[:1], starts=torch.zeros(1, dtype=torch.int32))
    shared = [x[:1].expand(1, *shape) for x in (keys, values)]
    out, lse = torch.empty_like(q), torch.empty(shape[:2])
    works: dict[str, Work] = {
        "dense": lambda: scaled_dot_product_attention(q[None], *shared, is_causal=True)
    }
    rows: list[Row] = []
    for piece in (64, 16):
        own = block // piece
        every = causal_pieces(tokens // piece, blocks, own)
        asked = [(density, DENSE_FROM["torch"], aim) for density, aim in AIMS.items()]
        asked += [(density, 1.0, None) for density in GATHERED]
        for density, dense_from, aim in asked:
            budget = next(
                budget
                for budget in range(own, tokens // piece + 1)
                if causal_pieces(budget, blocks, own) >= density * every
            )
            name = f"pieces of {piece}, {density:3.0%}{'' if aim else ', gathered'}"
            chunks, sizes = [Chunk(0, tokens)], {"piece_tokens": piece, "dense_from": dense_from}
            for sampled in SAMPLED_ROWS:
                pattern = Sampled(sampled)
                heads = [HeadShare(h, 0, budget * piece, pattern=pattern) for h in range(HEADS)]
                layout = prepare(heads, chunks, block, **sizes).prefill
                works[f"{sampled} rows, {name}"] = lambda a=layout: select(q, cache, a)
            indices = select(q, cache, layout)
            works[name] = lambda a=layout, b=indices: prefill_attention(q, cache, a, b, out, lse)
            row = {"case": name, "tokens": tokens, "head_dim": head_dim, "piece_tokens": piece}
            row |= {"density": causal_pieces(budget, blocks, own) / every, "aim": aim}
            rows.append(row | {"computed": layout.tiles / (HEADS * every)})
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            started = time.process_time()
            work()
            if turn:
                seconds[name].append(time.process_time() - started)
    dense = seconds["dense"]
    for row in rows:
        attention = seconds[row["case"]]
        row["attention"] = over(attention, dense)
        row["dense_seconds"] = spread(dense)
        row["by_sampled_rows"] = {}
        for sampled in SAMPLED_ROWS:
            selection = seconds[f"{sampled} rows, {row['case']}"]
            both = [a + b for a, b in zip(selection, attention, strict=True)]
            found = {"selection": over(selection, dense), "whole": over(both, dense)}
            if row["aim"]:
                found["met"] = found["whole"]["median"] <= row["aim"]
                found["selection_met"] = found["selection"]["median"] <= SELECTION_AIM
            row["by_sampled_rows"][str(sampled)] = found
    return rows


def over(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Our seconds over theirs, round by round; `of_least` is what least disturbed runs say on a
    machine that others use."""
    ratios = spread([a / b for a, b in zip(ours, theirs, strict=True)])
    return ratios | {"of_least": min(ours) / min(theirs)}


def selected_line(row: Row) -> str:
    said = [
        f"{row['tokens']} tokens head_dim {row['head_dim']:3} {row['case']:28} attention "
        f"{row['attention']['median']:.3f} of SDPA"
    ]
    for sampled, found in row["by_sampled_rows"].items():
        whole, missed = found["whole"], not found.get("met", True)
        said.append(
            f"{sampled} rows: selection {found['selection']['median']:.3f}, whole "
            f"{whole['median']:.3f} ({whole['least']:.3f} to {whole['most']:.3f})"
            + (f" NOT MET, {row['aim']:.2f}" if missed else "")
        )
    return "; ".join(said)


def line(row: Row) -> str:
    ratio, own, flex = row["ratio"], row.get("of_our_dense"), row.get("flex_ratio")
    return (
        f"{row['threads']} threads {row['dtype']:8} head_dim {row['head_dim']:3} {row['case']:28} "
        f"{row['seconds']['median'] * 1e3:7.1f} ms, density {row['density']:.3f}; per tile "
        f"{ratio['median']:.2f} x SDPA ({ratio['least']:.2f} to {ratio['most']:.2f})"
        + (f", {own['median']:.2f} x our dense" if own else "")
        + (f", {flex['median']:.2f} x Flex" if flex else "")
        + (f"; Flex: {row['flex_failure']}" if "flex_failure" in row else "")
        + ("" if row.get("met", True) else "  NOT MET")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny shapes, one round")
    parser.add_argument("--selected", action="store_true", help="with selection, over dense")
    arguments = report.arguments(parser)
    table = report.table_to(arguments.json)
    rounds = 1 if arguments.quick else arguments.rounds
    rows: list[Row] = []
    load, before = os.getloadavg()[0], torch.get_num_threads()

    def show(found: list[Row], text: Callable[[Row], str]) -> None:
        for row in found:
            rows.append(row)
            print(text(row), file=table, flush=True)

    try:
        if arguments.selected:
            torch.set_num_threads(1)
            for tokens in (1024,) if arguments.quick else (4096, 8192):
                for head_dim in (16,) if arguments.quick else (64, 128):
                    show(measure_selected(tokens, head_dim, rounds), selected_line)
        else:
            for threads in (1,) if arguments.quick else (1, 2):
                torch.set_num_threads(threads)
                for case in QUICK if arguments.quick else FULL:
                    show(measure(case, threads, rounds, compiled=not arguments.quick), line)
    finally:
        torch.set_num_threads(before)
    if arguments.selected:
        found = {
            sampled: [x["by_sampled_rows"][str(sampled)] for x in rows if x["aim"]]
            for sampled in SAMPLED_ROWS
        }
        summary: Row = {
            str(sampled): {
                "met": sum(x["met"] for x in of),
                "selection_met": sum(x["selection_met"] for x in of),
                "of": len(of),
            }
            for sampled, of in found.items()
        }
    else:
        met = [row["met"] for row in rows if "met" in row]
        summary = {"met": sum(met), "of": len(met)}
    report.deliver(
        arguments.json,
        note="random inputs and lists; small blocks are reported without a target",
        torch=torch.__version__,
        capability=torch.backends.cpu.get_cpu_capability(),
        rounds=rounds,
        load_before_and_after=[load, os.getloadavg()[0]],
        summary=summary,
        rows=rows,
    )


if __name__ == "__main__":
    with torch.inference_mode():
        main()
