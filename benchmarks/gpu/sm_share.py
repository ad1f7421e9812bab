"""A share of the multiprocessors: how much slower prefill and decode become, alone and together.

The first table is what a cost model can take: share of the multiprocessors, slow-down against all
of them. Together (Nexus, arXiv 2507.06608): one stream prefills, another decodes step after step
under CUDA graphs, each within its share; both are timed only while the other runs.
"""

# Parts of torch have no types for mypy to check.
# mypy: disable-error-code="no-untyped-call"

from functools import partial
from itertools import pairwise

import torch

from benchmarks.gpu.decode import Step, steps
from benchmarks.gpu.rows import Row
from benchmarks.gpu.scene import LLAMA_8B, TINY, Problem, Tile, multiprocessors, problems
from benchmarks.gpu.section import Section
from benchmarks.gpu.timing import Call, captured, timed

QUARTERS = (4, 3, 2, 1)
"""Of the multiprocessors that there are."""
HEAD_START_CYCLES = 20_000_000
"""About 10 ms for the host to queue the measured calls and start the others."""
PREFILL_TOKENS, DECODE_TOKENS, BATCH = 32_768, 32_768, 16


def run(section: Section) -> None:
    prefill, step = _prefill(section), _decode(section)
    every = multiprocessors(section.device)
    shares = [every * quarters // 4 for quarters in QUARTERS]
    table = []
    for sms in shares[:2] if section.tiny else shares:
        row = section.attempt(f"alone on {sms}", partial(_alone, prefill, step, sms, every))
        table += [row] if row else []
    if table:
        section.attempt("slow-down by share", partial(_table, table))
    if not section.tiny:
        for sms in shares[1:]:
            name = f"prefill on {sms}, decode on {every - sms}"
            section.attempt(name, partial(_together, prefill, step, sms, every - sms))


def _prefill(section: Section) -> Problem:
    if section.tiny:
        return problems(TINY, 64, Tile(16, 16), 2, device=section.device)[0]
    return problems(LLAMA_8B, PREFILL_TOKENS, Tile(64, 64), 64, device=section.device)[0]


def _decode(section: Section) -> Step:
    if section.tiny:
        return steps(TINY, 2, 64, 16, 2, device=section.device, sets=1)[0]
    pieces = DECODE_TOKENS // 64
    return steps(LLAMA_8B, BATCH, DECODE_TOKENS, 64, pieces, device=section.device, sets=1)[0]


def _alone(prefill: Problem, step: Step, sms: int, every: int) -> Row:
    whole = None if sms == every else sms
    prefilled = timed([partial(prefill.attend, whole)])
    decoded = timed([partial(step.attend, whole)], graph=True)
    queued = timed([partial(prefill.attend, sms)])
    return {
        "sms": sms,
        "share": sms / every,
        **prefilled.figures("prefill"),
        **decoded.figures("decode"),
        "prefill_queued_s": queued.median_s,
    }


def _table(rows: list[Row]) -> Row:
    """Share -> slow-down against all multiprocessors, and against the share's reciprocal."""
    full = rows[0]
    return {
        f"{row['share']:.2f}": {
            "prefill": row["prefill_s"] / full["prefill_s"],
            "decode": row["decode_s"] / full["decode_s"],
            "proportional": 1 / row["share"],
        }
        for row in rows
    }


def _together(prefill: Problem, step: Step, sms: int, rest: int) -> Row:
    """Slow-downs against each alone on all multiprocessors."""
    alone = [
        timed([prefill.attend], graph=True).median_s,
        timed([step.attend], graph=True).median_s,
    ]
    replays = [
        captured([partial(prefill.attend, sms)]),
        captured([partial(step.attend, rest)]),
    ]
    shared = [
        _while_other_runs(replays[0], replays[1], alone[0], alone[1]),
        _while_other_runs(replays[1], replays[0], alone[1], alone[0]),
    ]
    return {
        "prefill_sms": sms,
        "decode_sms": rest,
        "prefill_s": shared[0],
        "decode_s": shared[1],
        "prefill_slow_down": shared[0] / alone[0],
        "decode_slow_down": shared[1] / alone[1],
        "sum_of_rates": alone[0] / shared[0] + alone[1] / shared[1],
    }


def _while_other_runs(measured: Call, other: Call, measured_s: float, other_s: float) -> float:
    """Median seconds of `measured` over the calls during which `other` kept its stream busy."""
    times = max(5, min(100, int(0.1 / measured_s)))
    # Enough of the other for each measured call to be four times slower than alone.
    others = int(4 * times * measured_s / other_s) + 2
    measuring, beside = torch.cuda.Stream(), torch.cuda.Stream()
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(times + 1)]
    torch.cuda.synchronize()
    with torch.cuda.stream(measuring):
        torch.cuda._sleep(HEAD_START_CYCLES)
        marks[0].record()
        for mark in marks[1:]:
            measured()
            mark.record()
    with torch.cuda.stream(beside):
        begun.record()
        for _ in range(others):
            other()
        ended.record()
    torch.cuda.synchronize()
    seconds: list[float] = [
        start.elapsed_time(end) / 1e3
        for start, end in pairwise(marks)
        if begun.elapsed_time(start) > 0 and end.elapsed_time(ended) > 0
    ]
    if len(seconds) < 3:
        raise RuntimeError("the other stream was not busy for long enough to measure beside it")
    return sorted(seconds)[len(seconds) // 2]
