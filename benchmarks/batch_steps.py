"""What laying out an engine's batch costs: steps of all layers for 1 and for 32 requests.

    python benchmarks/batch_steps.py [--rounds 200] [--json [FILE]]

A rank of two, of a model of SmolLM2-135M's shape (30 layers, 9 query and 3 KV heads) in two KV
slots a rank: in every layer a KV group is its own and one is divided with the other rank. Over a
paged cache, in CPU seconds of one thread, medians over rounds:

    decodes    requests that decode, from round to round a token longer
    one chunk  a request that brings a chunk of 2,048 tokens, another in each round; beside it 31
               that decode
    chunks     others in each round that bring 64 tokens each, behind a prefix: 32 times the rows
    as many    the 2,048 tokens of one chunk, of one request and of 32

Aim: 32 requests cost at most 1.2 times what one costs.

And what timing a sampled batch costs, a chunk and 31 decodes: the looks at the clock of all layers
on the thread that serves, and counting the work on the one that reports.
"""

import argparse
import time
from collections.abc import Iterator
from statistics import median
from typing import TextIO

import numpy as np
import torch

from benchmarks import report
from executor.engines.vllm.options import SAMPLE_EVERY
from executor.engines.vllm.timing import SampledStep
from executor.inference.phase_work import phase_work
from executor.inference.slot_steps import SlotSteps, paged
from executor.row_ranges import Range
from executor.weights.execution_map import ExecutionMap, Original
from executor.weights.slots import Slot, SlotLayout
from profiles.architecture import Architecture

SHAPE = Architecture(layers=30, query_heads=9, kv_heads=3, head_dim=64, hidden_size=576)
LONGEST, PAGE, CHUNK, PROMPT = 8192, 128, 64, 2048
REQUESTS = 32
AIM = 1.2
Lengths = tuple[list[int], list[int]]
"""Tokens that each request has had before, and has."""


def two_ranks() -> ExecutionMap:
    """A map by hand: budgets from a sixteenth of the longest context to half of it."""

    def slot(group: int, rows: Range) -> Slot:
        heads = tuple(range(3 * group, 3 * group + 3))
        return Slot(group=group, heads=heads, rows=(rows,) * 3)

    def layer(number: int) -> tuple[tuple[Slot, Slot], tuple[Slot, Slot]]:
        first, second, third = (np.arange(3) + number) % 3
        return (
            (slot(int(first), (0.0, 1.0)), slot(int(second), (0.0, 0.5))),
            (slot(int(third), (0.0, 1.0)), slot(int(second), (0.5, 1.0))),
        )

    made = ExecutionMap(
        plan="by hand",
        architecture=SHAPE,
        layout=SlotLayout(slot_heads=3, layers=tuple(layer(n) for n in range(SHAPE.layers))),
        budgets=[
            [LONGEST * (1 + (head + layer) % 8) // 16 for head in range(SHAPE.query_heads)]
            for layer in range(SHAPE.layers)
        ],
        block_tokens=64,
        piece_tokens=64,
        original=Original(tensors_sha256="", files={}),
    )
    return made.model_copy(update={"hash": made.content_hash()})


def batches(kind: str, requests: int, rounds: int) -> Iterator[Lengths]:
    """Rounds of a batch; who decodes goes on from round to round, a chunk is of another request."""
    draw = np.random.default_rng(0)
    new = np.ones(requests, np.int64)
    match kind:
        case "chunks":
            new[:] = CHUNK
        case "one chunk":
            new[-1] = PROMPT
    had = draw.integers(LONGEST // 8, LONGEST // 2, requests)
    for _ in range(rounds):
        had = np.where(new > 1, draw.integers(LONGEST // 8, LONGEST // 2, requests), had + 1)
        yield had.tolist(), (had + new).tolist()


def seconds(steps: SlotSteps, given: list[Lengths]) -> float:
    """CPU seconds of a batch, its place in a paged cache included."""
    taken = []
    table = torch.zeros(len(given[0][0]), -(-LONGEST // PAGE), dtype=torch.int32)
    for had, has in given:
        context = torch.tensor(has, dtype=torch.int32)
        started = time.process_time()
        for phase in steps.of_batch(had, has).phases:
            paged(phase, table, context, PAGE)
        taken.append(time.process_time() - started)
    return median(taken)


def sampled(steps: SlotSteps, given: list[Lengths]) -> tuple[float, float]:
    """CPU seconds that timing a batch adds to the thread that serves, and to the one that reports:
    nothing is computed between two looks at the clock."""
    made, device, serving, reporting = two_ranks(), torch.device("cpu"), [], []
    for number, (had, has) in enumerate(given):
        batch = steps.of_batch(had, has)
        started = time.process_time()
        step = SampledStep(number, made, (0,), batch, steps.groups, device, 0)
        for layer in range(SHAPE.layers):
            for phase in range(len(batch.phases)):
                step.end(layer, phase, step.begin())
        served = time.process_time()
        step.took()
        for of in batch.phases:
            phase_work(of, steps.groups, SHAPE)
        serving.append(served - started)
        reporting.append(time.process_time() - served)
    return median(serving), median(reporting)


def row(kind: str, one_s: float, many_s: float, out: TextIO) -> dict[str, str | float]:
    """A batch of one request beside that of many, told as well."""
    print(
        f"{kind:10} {1e3 * one_s:7.2f} ms for 1, {1e3 * many_s:7.2f} ms for {REQUESTS}: "
        f"{many_s / one_s:.2f} times",
        file=out,
    )
    return {"batch": kind, "one_s": one_s, "many_s": many_s, "ratio": many_s / one_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    arguments = report.arguments(parser)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    out = report.table_to(arguments.json)
    for kind in ("decodes", "one chunk", "chunks"):
        taken = []
        for requests in (1, REQUESTS):
            steps = SlotSteps(two_ranks(), (0,), LONGEST, torch.device("cpu"), range(SHAPE.layers))
            given = list(batches(kind, requests, arguments.rounds))
            seconds(steps, given[:2])
            taken.append(seconds(steps, given))
        rows.append(row(kind, *taken, out))
    chunk, chunks = rows[-2:]
    rows.append(row("as many", chunk["one_s"], chunks["many_s"], out))
    serving_s, reporting_s = sampled(steps, list(batches("one chunk", REQUESTS, arguments.rounds)))
    print(
        f"sampled    {1e3 * serving_s:7.2f} ms of serving, {1e3 * reporting_s:7.2f} ms of the "
        f"reporting thread, one batch in {SAMPLE_EVERY}",
        file=out,
    )
    torch.set_num_threads(before)
    sizes = {"requests": REQUESTS, "chunk_tokens": PROMPT, "small_chunk_tokens": CHUNK}
    timed = {"serving_s": serving_s, "reporting_s": reporting_s, "every": SAMPLE_EVERY}
    report.deliver(
        arguments.json, **sizes, rounds=arguments.rounds, aim=AIM, sampled=timed, rows=rows
    )


if __name__ == "__main__":
    main()
