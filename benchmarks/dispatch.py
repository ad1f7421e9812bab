"""A device's programs at work, simulated, for benchmarks/schedule.py: lists cost their blocks.

Pieces of keys are as long as query blocks here, and one head runs in a program.
"""

import heapq
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from executor.kernels.layout import Layout

OVERHEAD_BLOCKS = 2
"""What beginning and ending a list, or a part of one, costs in prefill."""


def dispatched(costs: Sequence[int], programs: int) -> int:
    """The makespan of handing out `costs` in order, each to the program that is free first.

    >>> dispatched([3, 2, 2], programs=2)  # 3; 2, then 2
    4
    """
    busy = list(costs[:programs])
    heapq.heapify(busy)
    for cost in costs[programs:]:
        heapq.heapreplace(busy, busy[0] + cost)
    return max(busy)


def strided(costs: Sequence[int], programs: int) -> int:
    """The makespan where program p takes p, p + programs, ... of `costs`."""
    return max(sum(costs[program::programs]) for program in range(min(programs, len(costs))))


def unavoidable(costs: Sequence[int], programs: int) -> float:
    """A makespan that no schedule of uncut lists beats.

    Of the k * programs + 1 longest lists some program has k + 1, which last at least as long as
    the k + 1 shortest of them.

    >>> unavoidable([3, 2, 2], programs=2)
    4
    """
    down = sorted(costs, reverse=True)
    crowded = [
        sum(down[last - turns : last + 1])
        for turns, last in enumerate(range(0, len(down), programs))
    ]
    return max(sum(down) / programs, *crowded)


def prefill(uncut: Layout, cut: Layout, programs: int) -> dict[str, float]:
    """Makespan over max(total / programs, longest list), by order; "mean": over total / programs.

    `cut` is the same work laid out for this number of programs.
    """
    costs = uncut.length.numpy().astype(np.int64) + OVERHEAD_BLOCKS
    mean = int(costs.sum()) / programs
    bound = max(mean, int(costs.max()))
    backwards = np.lexsort((-uncut.query_block.numpy(), uncut.entry.numpy()))
    longest = dispatched(costs[uncut.order.numpy()].tolist(), programs)
    parts = longest
    if cut.parts is not None:
        blocks = cut.parts.table[:, 2].numpy().astype(np.int64)
        parts = dispatched((blocks + OVERHEAD_BLOCKS).tolist(), programs)
    return {
        "grid": dispatched(costs.tolist(), programs) / bound,
        "reversed": dispatched(costs[backwards].tolist(), programs) / bound,
        "strided": strided(costs.tolist(), programs) / bound,
        "longest": longest / bound,
        "no order": unavoidable(costs.tolist(), programs) / bound,
        "mean: longest": longest / mean,
        "mean: cut": parts / mean,
    }


def decode(counts: Sequence[int], programs: int) -> dict[str, float]:
    """Makespan over max(total / programs, 1), by rule; the most parts of lists in a program."""
    mean = sum(counts) / programs
    chunked = dispatched(chunks(counts, programs), programs)
    return {
        "chunks": chunked / max(mean, 1),
        "stretches": -(-sum(counts) // programs) / max(mean, 1),
        "parts": max(stretches(counts, programs)),
        "mean: chunks": chunked / mean,
    }


def chunks(counts: Sequence[int], programs: int) -> list[int]:
    """Blocks of every chunk that lists of `counts` blocks are cut into, list by list.

    >>> chunks([7, 2], programs=3)
    [2, 2, 3, 2]
    """
    chunk = max(1, -(-sum(counts) // programs))
    found = []
    for count in counts:
        parts = -(-count // chunk)
        found += [count * (part + 1) // parts - count * part // parts for part in range(parts)]
    return found


def stretches(counts: Sequence[int], programs: int) -> list[int]:
    """How many lists each program has a part of, where all get the same number of blocks.

    >>> stretches([7, 2], programs=3)
    [1, 1, 2]
    """
    share, longer = divmod(sum(counts), programs)
    cuts = [program * share + min(program, longer) for program in range(programs + 1)]
    ends = list(accumulate(counts))
    first = np.searchsorted(ends, cuts[:-1], "right")
    last = np.searchsorted(ends, np.array(cuts[1:]) - 1, "right")
    return [int(parts) for parts in (last - first + 1)[: programs if share else longer]]
