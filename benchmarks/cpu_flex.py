"""Compiled FlexAttention as a CPU back end: what ever new steps would cost it, and its answer.

    python benchmarks/cpu_flex.py [--turns 5] [--quick] [--json [FILE]]

Steps whose lists, lengths, numbers of heads and blocks change in turn, as in serving, on one thread
in fp32 at head_dim 128: per step the seconds to make its BlockMask, the seconds of the first call
with what was compiled for it, and our seconds over FlexAttention's afterwards (medians of turns,
CPU seconds). Compiled for every shape (dynamic=False) and for all (True), from an empty cache.
Before all that, whether it returns the log-sum-exp that every result of ours holds. --quick: tiny
shapes, not compiled.
"""

import argparse
import os
import time
from collections.abc import Callable
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch._dynamo.utils import counters
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from benchmarks import report
from benchmarks.cpu_attention import lists_by_chance
from benchmarks.gpu.peers import block_mask, padded_lists
from executor.attention.lists import lay_out
from executor.kernels.batch import Cache, Chunk
from executor.kernels.layout import HeadBlocks, Layout
from executor.kernels.torch.prefill import prefill_attention

Row = dict[str, Any]
Step = tuple[int, int, int, float]
"""Block, tokens, heads of one KV group, budget as a share of the tokens."""
FULL: tuple[Step, ...] = (
    (64, 2048, 2, 0.25),
    (64, 2048, 2, 0.1),
    (64, 4096, 2, 0.25),
    (64, 8192, 2, 0.25),
    (64, 8192, 2, 0.1),
    (64, 8000, 2, 0.1),
    (64, 8192, 4, 0.1),
    (64, 8192, 3, 0.1),
    (128, 8192, 2, 0.25),
    (128, 8192, 2, 0.1),
)
QUICK: tuple[Step, ...] = ((16, 128, 2, 0.25), (16, 120, 1, 0.25))


def mask_of(layout: Layout, indices: torch.Tensor, tokens: int) -> BlockMask:
    """The lists as FlexAttention reads them: full blocks, and each row's own under the causal mask.

    A CPU wants as many places for a list as there are blocks of keys, which the padding makes.
    """
    heads = len(layout.heads)
    blocks = layout.lists // heads
    own = layout.query_block.view(heads, -1, 1)
    return block_mask(
        torch.nn.functional.pad(own, (0, blocks - 1)),
        padded_lists(layout, indices, blocks).view(heads, -1, blocks),
        layout.length.view(heads, -1) - 1,
        block_tokens=layout.block_tokens,
        tokens=tokens,
    )


def measure(step: Step, flex: Callable[..., Any], head_dim: int, turns: int) -> Row:
    """One step after others: planned, called first, and then in turns with ours."""
    block, tokens, heads, budget = step
    blocks = -(-tokens // block)
    random = torch.Generator().manual_seed(0)
    q = torch.randn(heads, tokens, head_dim, generator=random)
    keys, values = torch.randn(2, 1, tokens, head_dim, generator=random)
    cache = Cache(keys, values, starts=torch.zeros(1, dtype=torch.int32))
    rows = [HeadBlocks(head, 0, max(1, round(budget * blocks)), 0, blocks) for head in range(heads)]
    layout = lay_out(rows, [Chunk(0, tokens)], block)
    indices = lists_by_chance(layout)
    out, lse = torch.empty_like(q), torch.empty(q.shape[:2])
    began = time.process_time()
    mask = mask_of(layout, indices, tokens)
    planned = time.process_time() - began

    def theirs() -> torch.Tensor:
        found = flex(q[None], keys[None], values[None], block_mask=mask, enable_gqa=True)
        assert isinstance(found, torch.Tensor)
        return found[0]

    before, began = compiled_graphs(), time.perf_counter()
    theirs()
    first = time.perf_counter() - began
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        for work, taken in zip(
            (lambda: prefill_attention(q, cache, layout, indices, out, lse), theirs),
            seconds,
            strict=True,
        ):
            began = time.process_time()
            work()
            taken.append(time.process_time() - began)
    ours, flexed = map(median, seconds)
    return {
        "block_tokens": block,
        "tokens": tokens,
        "heads": heads,
        "budget": budget,
        "plan_s": planned,
        "first_call_s": first,
        "compiled": compiled_graphs() - before,
        "flex_s": flexed,
        "our_s": ours,
        "ratio": ours / flexed,
        "difference": float((out - theirs()).abs().max()),
    }


def compiled_graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def log_sum_exp(flex: Callable[..., Any], head_dim: int) -> str:
    """What FlexAttention says when asked for one."""
    q = torch.randn(1, 1, 128, head_dim)
    try:
        flex(q, q, q, return_aux=AuxRequest(lse=True))
    except Exception as error:
        said = [line for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {said[0]}"
    return "returned"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny shapes, not compiled")
    arguments = report.arguments(parser)
    table = report.table_to(arguments.json)
    steps, head_dim, turns = (QUICK, 16, 1) if arguments.quick else (FULL, 128, arguments.turns)
    rows: list[Row] = []
    answer, load, threads = "", os.getloadavg()[0], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for dynamic in (False, True):
            torch.compiler.reset()
            flex: Any = flex_attention
            if not arguments.quick:
                flex = torch.compile(flex_attention, dynamic=dynamic)
            answer = log_sum_exp(flex, head_dim)
            for step in steps:
                row = {"dynamic": dynamic, **measure(step, flex, head_dim, turns)}
                rows.append(row)
                print(line(row), file=table, flush=True)
    finally:
        torch.set_num_threads(threads)
    print(f"log-sum-exp: {answer}", file=table)
    report.deliver(
        arguments.json,
        note="random inputs and lists; one thread, fp32",
        torch=torch.__version__,
        turns=turns,
        load_before_and_after=[load, os.getloadavg()[0]],
        log_sum_exp=answer,
        rows=rows,
    )


def line(row: Row) -> str:
    return (
        f"dynamic={row['dynamic']!s:5} blocks of {row['block_tokens']:3} tokens {row['tokens']:5} "
        f"heads {row['heads']} budget {row['budget']:4.0%}: mask {row['plan_s'] * 1e3:6.1f} ms, "
        f"first call {row['first_call_s']:5.1f} s ({row['compiled']} compiled), then "
        f"{row['flex_s'] * 1e3:6.1f} ms; ours {row['our_s'] * 1e3:6.1f} ms, {row['ratio']:.2f} x"
    )


if __name__ == "__main__":
    with TemporaryDirectory() as folder, torch.inference_mode():
        # What an earlier run compiled would be read from PyTorch's cache.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        main()
