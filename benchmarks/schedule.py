"""How evenly one device's tiles fill its multiprocessors, in SIMULATION: nothing runs on a GPU.

    python benchmarks/schedule.py [--profiles NAME,...] [--contexts 8192,32768,131072]
                                  [--layers 4] [--time-limit 1] [--json [FILE]]

The lists are the executor's own (`executor.kernels.layout`) for the budgets of real profiles with
the shapes of Llama-3.1-8B and Qwen2.5-7B. A list costs 2 blocks, to begin and to end it, and its
own blocks; 132 multiprocessors run 1 or 2 programs each, all at one speed (a program that is
left alone on its multiprocessor may run faster). Every device's share of some layers under four
plans: all heads on one GPU; on 8 contiguous, greedy, and our divided heads. Orders, by makespan
over max(total / programs, longest list):

    grid      head after head, rows ascending, handed to whichever program is free
    reversed  the same with every head's rows descending (FlashAttention's "LPT" for causal masks)
    strided   persistent program p takes the lists p, p + programs, ... of the grid
    longest   longest first (ours), handed out; an atomic queue over that order does the same
    no order  what no order beats (of programs + 1 lists some program has two, and so on)
    mean:     over total / programs instead: longest first uncut, and with lists cut by
              `lay_out(programs=...)`, whose parts cost 2 blocks each as well

A GPU hands out the blocks of a grid in order, which is greedy dispatch. Decode, by makespan in
blocks over max(total / programs, 1), as a block is not cut:

    chunks     every list cut into ceil(count / chunk) near-equal chunks, chunk = ceil(total /
               programs), handed out: those beyond the programs wait for a second turn
    stretches  all lists end to end, one stretch a program (ours:
               executor/kernels/triton/chunks.py)
    parts      the most parts of lists that a program has of its stretch
    mean:      chunks over total / programs

Aim: longest first within 3 % of the bound for every share.
"""

import argparse
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, TextIO

import numpy as np

from benchmarks import dispatch, report
from benchmarks.placement import load
from executor.attention.lists import lay_out
from executor.attention.step import prepare
from executor.kernels.batch import Chunk
from executor.kernels.layout import HeadBlocks
from executor.node.shard import layer_shard
from profiles.catalogue import catalogue_rates
from profiles.model import ModelProfile
from profiles.public_models import MODELS
from solver.planning.planner import make_plan
from solver.plans import Plan
from solver.request import PlanRequest

Row = dict[str, Any]
SHAPES = ("Llama-3.1-8B", "Qwen2.5-7B")
GPUS, MULTIPROCESSORS, PROGRAMS_EACH = 8, 132, (1, 2)
BATCHES = (1, 16)
AIM = 1.03
PLANS: dict[str, dict[str, Any]] = {
    "one GPU": {"gpus": 1, "method": "contiguous"},
    "contiguous": {"gpus": GPUS, "method": "contiguous"},
    "greedy": {"gpus": GPUS, "method": "greedy"},
    "divided": {"gpus": GPUS, "placement": {"divisible": True}},
}
CASE = ["context_tokens", "plan", "programs"]


def plan_of(profile: ModelProfile, context_tokens: int, name: str, limit_s: float) -> Plan:
    request = PlanRequest.model_validate(
        {
            "profile": profile,
            "context_tokens": context_tokens,
            "time_limit_s": limit_s,
            **PLANS[name],
        }
    )
    return make_plan(request, [catalogue_rates(["h200"], "prefill")])


def heads_of(plan: Plan, layer: int, device: int) -> list[HeadBlocks]:
    """What a device computes of one prompt in one layer."""
    block, shard = plan.workload.block_tokens, layer_shard(plan, device, layer)
    prefill = prepare(shard.shares, shard.chunks, block).prefill
    return [] if prefill is None else list(prefill.heads)


def shares(plan: Plan, layers: int) -> list[list[HeadBlocks]]:
    """Every device's work in `layers` layers spread over the model."""
    chosen = np.linspace(0, len(plan.layers) - 1, layers).round().astype(int).tolist()
    every = [heads_of(plan, layer, d) for layer in chosen for d in range(len(plan.devices))]
    return [heads for heads in every if any(head.first < head.last for head in heads)]


def group_budgets(heads: list[HeadBlocks]) -> list[int]:
    """Blocks of the one list that a KV group's heads on a device read in decode: the largest."""
    largest: dict[int, int] = {}
    for head in heads:
        largest[head.group] = max(largest.get(head.group, 0), head.budget_pieces)
    return list(largest.values())


def measure(plan: Plan, layers: int) -> Iterator[Row]:
    """One row a phase, number of programs and batch: `over`, every share's figures by order."""
    chunk, block = Chunk(0, plan.workload.context_tokens), plan.workload.block_tokens
    work = shares(plan, layers)
    uncut = [lay_out(heads, [chunk], block) for heads in work]
    for programs in (each * MULTIPROCESSORS for each in PROGRAMS_EACH):
        cut = [lay_out(heads, [chunk], block, programs=programs) for heads in work]
        over = [dispatch.prefill(*pair, programs) for pair in zip(uncut, cut, strict=True)]
        yield {"phase": "prefill", "programs": programs, "over": by_name(over)}
        for batch in () if plan.rules.divisible else BATCHES:
            over = [dispatch.decode(group_budgets(heads) * batch, programs) for heads in work]
            yield {"phase": "decode", "programs": programs, "batch": batch, "over": by_name(over)}


def by_name(found: list[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [float(figures[name]) for figures in found] for name in found[0]}


def by_case(rows: list[Row], fields: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    """The rows that agree in `fields`, in the order they came."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[field] for field in fields), []).append(row)
    return found


def print_table(rows: list[Row], fields: list[str], table: TextIO) -> None:
    """Over all profiles, layers and devices: the worst share, and the median in brackets."""
    columns = list(rows[0]["over"])
    print(f"| {' | '.join([*fields, 'shares', *columns])} |", file=table)
    print("|" + "---|" * (len(fields) + 1 + len(columns)), file=table)
    for case, alike in by_case(rows, fields).items():
        figures = [[each for row in alike for each in row["over"][name]] for name in columns]
        cells = [f"{max(each):.3f} ({median(each):.3f})" for each in figures]
        print("| " + " | ".join(map(str, [*case, len(figures[0]), *cells])) + " |", file=table)


def aim(rows: list[Row]) -> Row:
    """How many shares longest first fills within the aim, and which cases have others."""
    missed = [
        (row, best)
        for row in rows
        for ours, best in zip(row["over"]["longest"], row["over"]["no order"], strict=True)
        if ours > AIM
    ]
    of = sum(len(row["over"]["longest"]) for row in rows)
    cases = by_case([row for row, _ in missed], CASE)
    return {
        "met": of - len(missed),
        "of": of,
        "worst": max(max(row["over"]["longest"]) for row in rows),
        "missed_by_every_order": sum(best > AIM for _, best in missed),
        "not_met": {" ".join(map(str, case)): len(alike) for case, alike in cases.items()},
    }


def shortened(row: Row) -> Row:
    """The row with the worst and the median share in place of all."""
    over = {
        name: {"worst": round(max(each), 4), "median": round(median(each), 4)}
        for name, each in row["over"].items()
    }
    return {**row, "shares": len(next(iter(row["over"].values()))), "over": over}


def print_all(rows: list[Row], reached: Row, table: TextIO) -> None:
    print("SIMULATED, over the bound: the worst share and (the median). Prefill", file=table)
    print_table([row for row in rows if row["phase"] == "prefill"], CASE, table)
    print("SIMULATED, the same for decode", file=table)
    print_table([row for row in rows if row["phase"] == "decode"], [*CASE, "batch"], table)
    print(
        f"{'PASS' if reached['met'] == reached['of'] else 'FAIL'}: longest first within {AIM:g} "
        f"of the bound in {reached['met']} of {reached['of']} simulated shares, the worst "
        f"{reached['worst']:.3f}; of the others no order could bring "
        f"{reached['missed_by_every_order']} within it",
        file=table,
    )
    for case, missed in reached["not_met"].items():
        print(f"    not: {case}: {missed}", file=table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/heads"))
    parser.add_argument("--profiles", help="parts of names, comma-separated; all unless given")
    parser.add_argument("--contexts", default="8192,32768,131072")
    parser.add_argument("--layers", type=int, default=4, help="how many, spread over the model")
    parser.add_argument("--time-limit", type=float, default=1.0, help="seconds per divided plan")
    arguments = report.arguments(parser)
    names = arguments.profiles.split(",") if arguments.profiles else None
    contexts = [int(part) for part in arguments.contexts.split(",")]
    known = [MODELS[shape] for shape in SHAPES]
    profiles = [each for each in load(arguments.data, names) if each.architecture in known]
    if not profiles:
        parser.error(f"no profile of {' or '.join(SHAPES)} below {arguments.data} matches")
    rows = [
        {"profile": profile.name, "context_tokens": context, "plan": name, **row}
        for profile, context, name in product(profiles, contexts, PLANS)
        for row in measure(plan_of(profile, context, name, arguments.time_limit), arguments.layers)
    ]
    reached = aim([row for row in rows if row["phase"] == "prefill"])
    print_all(rows, reached, report.table_to(arguments.json))
    report.deliver(
        arguments.json,
        versions={name: version(name) for name in ("hplb", "torch", "numpy", "ortools")},
        note="SIMULATION over the executor's lists; nothing was measured on a GPU",
        aim=reached,
        rows=[shortened(row) for row in rows],
    )


if __name__ == "__main__":
    main()
