"""How fast a proof comes: synthetic costs of 80 layers x 64 heads on 8 devices, and a supernode.

    python benchmarks/speed.py [--seeds 0,1,2,3,4] [--repeat 3] [--json [FILE]]

Synthetic throughout: log-normal costs (sigma 1) and two-valued ones (a quarter of the heads twelve
times as heavy), free and equal counts, until within 1 % of a proved bound; then the whole plan of
61 layers x 128 heads with log-normal budgets on 384 devices, divided, from the profile to the JSON,
in 10 and in 2 seconds, and of 4 layers x 1,024 heads on 4,096 devices in 1, against the mean load;
of 32 layers x 64 heads in 8 groups on as many H100 as A100, divided, in 5 seconds, once each,
against a proved bound; then `auto` where greedy already meets the tolerance. Seconds are medians
over --repeat with the least and the most.
"""

import argparse
import time
from collections.abc import Callable
from math import inf
from statistics import median
from typing import Any, TypeVar

import numpy as np

from benchmarks import report
from profiles.architecture import Architecture
from profiles.heads import BudgetsForm
from profiles.model import ModelProfile
from solver.planning.planner import make_plan, rates_of, request_of
from solver.plans import Plan
from solver.problem import PlacementProblem
from solver.request import PlanRequest
from solver.search.solve import Search, solve
from solver.solution import Solution

Row = dict[str, Any]
Made = TypeVar("Made")
SIGMA, HEAVY_SHARE, HEAVY = 1.0, 0.25, 12.0
TYPICAL_S = 1e-4
CONTEXT = 131_072
SUPERNODES = (
    (61, 128, 384, 8, 10.0),
    (61, 128, 384, None, 10.0),
    (61, 128, 384, None, 2.0),
    (4, 1024, 4096, None, 1.0),
)
"""Layers, heads, devices, devices of a node, and the seconds that are asked for."""
UNLIKE, UNLIKE_S = (8, 32, 192), 5.0
"""How many devices of each of two types, and the seconds that are asked for."""
OVER_MEAN = 1.05
"""What the largest load may come to of the mean one."""


def problem(
    kind: str, seed: int, layers: int, heads: int, devices: int, **rules: Any
) -> PlacementProblem:
    """Heads without shared charges on identical devices."""
    random = np.random.default_rng(seed)
    shape = (1, layers, heads, 1)
    if kind == "log-normal":
        cost = random.lognormal(0, SIGMA, shape)
    elif kind == "two-valued":
        cost = np.where(random.random(shape) < HEAVY_SHARE, HEAVY, 1.0)
    else:
        cost = np.ones(shape)
    head_s = TYPICAL_S * cost
    return PlacementProblem(
        head_s=head_s,
        part_s=np.zeros_like(head_s),
        group_s=np.zeros((1, layers, heads, 1)),
        launch_s=np.zeros((1, 1)),
        weights=np.ones(1),
        type_of=np.zeros(devices, dtype=np.int64),
        **rules,
    )


def timed(repeat: int, work: Callable[[], Made]) -> tuple[Made, dict[str, float]]:
    """The last result, and the seconds of every repetition in short."""
    seconds = []
    for _ in range(repeat):
        started = time.perf_counter()
        made = work()
        seconds.append(time.perf_counter() - started)
    return made, {"median": median(seconds), "least": min(seconds), "most": max(seconds)}


def makespan_s(solution: Solution) -> float:
    return sum(layer.makespan_s for layer in solution.layers)


def proofs(seeds: list[int], repeat: int) -> list[Row]:
    rows = []
    for kind in ("log-normal", "two-valued"):
        for equal in (False, True):
            for seed in seeds:
                instance = problem(kind, seed, 80, 64, 8, equal_counts=equal)
                how = Search(tolerance=0.01, time_limit_s=1.0)
                solution, seconds = timed(repeat, lambda p=instance, h=how: solve(p, h))
                gap = 1 - solution.lower_bound_s / makespan_s(solution)
                rows.append(
                    {
                        "case": f"{kind}, {'equal' if equal else 'free'} counts",
                        "seed": seed,
                        "gap": gap,
                        "seconds": seconds,
                        "met": gap <= 0.01 and seconds["median"] <= 1.0,
                    }
                )
    return rows


def supernode(seeds: list[int], repeat: int) -> list[Row]:
    """Whole plans: budgets, costs, search, rounding, figures and JSON within the time limit."""
    rows = []
    for layers, heads, devices, node_size, limit_s in SUPERNODES:
        for seed in seeds:
            request = request_of(
                profile_of(layers, heads, heads, seed),
                gpus=devices,
                context_tokens=CONTEXT,
                divisible=True,
                node_size=node_size,
                time_limit_s=limit_s,
            )
            (made, written), seconds = timed(repeat, lambda asked=request: whole(asked))
            over = made.imbalance or inf
            nodes = f"nodes of {node_size}" if node_size else "one node"
            rows.append(
                {
                    "case": f"{layers} x {heads:,} heads on {devices:,} devices, {nodes}, divided, "
                    f"{limit_s:g} s asked",
                    "seed": seed,
                    "over_mean": over,
                    "json_bytes": len(written),
                    "seconds": seconds,
                    "met": over <= OVER_MEAN and seconds["median"] <= 1.1 * limit_s,
                }
            )
    return rows


def unlike(seeds: list[int]) -> list[Row]:
    """Whole plans of divided heads on two types of devices."""
    rows = []
    for each in UNLIKE:
        for seed in seeds:
            request = request_of(
                profile_of(32, 64, 8, seed),
                devices=[{"type": "h100", "count": each}, {"type": "a100", "count": each}],
                context_tokens=CONTEXT,
                divisible=True,
                time_limit_s=UNLIKE_S,
            )
            (made, _), seconds = timed(1, lambda asked=request: whole(asked))
            rows.append(
                {
                    "case": f"32 x 64 heads in 8 groups on {each} H100 and {each} A100, divided, "
                    f"{UNLIKE_S:g} s asked",
                    "seed": seed,
                    "gap": made.gap,
                    "makespan_s": made.makespan_s,
                    "seconds": seconds,
                    "met": seconds["median"] <= 1.1 * UNLIKE_S,
                }
            )
    return rows


def whole(asked: PlanRequest) -> tuple[Plan, str]:
    """A plan, and the JSON that whoever asks for it gets."""
    made = make_plan(asked, rates_of(asked))
    return made, made.model_dump_json()


def profile_of(layers: int, heads: int, kv_heads: int, seed: int) -> ModelProfile:
    """Log-normal budgets."""
    shape = Architecture(
        layers=layers, query_heads=heads, kv_heads=kv_heads, head_dim=128, hidden_size=7168
    )
    random = np.random.default_rng(seed)
    tokens = random.lognormal(9, SIGMA, (shape.layers, shape.query_heads))
    return ModelProfile(
        name="log-normal",
        architecture=shape,
        heads=BudgetsForm(tokens=np.clip(tokens, 64, CONTEXT).tolist()),
        source="drawn by benchmarks/speed.py",
        synthetic=True,
    )


def easy(repeat: int) -> list[Row]:
    """Greedy meets the tolerance: `auto` must be about as quick."""
    rows = []
    for kind, tolerance in (("uniform", 1e-3), ("log-normal", 0.01)):
        instance = problem(kind, 0, 80, 64, 8)
        greedy, greedy_s = timed(repeat, lambda p=instance: solve(p, Search("greedy")))
        how = Search(tolerance=tolerance)
        auto, seconds = timed(repeat, lambda p=instance, h=how: solve(p, h))
        rows.append(
            {
                "case": f"auto where greedy is within {tolerance:g} ({kind})",
                "seed": 0,
                "greedy_gap": 1 - greedy.lower_bound_s / makespan_s(greedy),
                "gap": 1 - auto.lower_bound_s / makespan_s(auto),
                "greedy_seconds": greedy_s,
                "seconds": seconds,
                "met": seconds["median"] <= 0.05,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = report.arguments(parser)
    seeds = [int(part) for part in arguments.seeds.split(",")]
    rows = proofs(seeds, arguments.repeat) + supernode(seeds, arguments.repeat)
    rows += unlike(seeds) + easy(arguments.repeat)
    table = report.table_to(arguments.json)
    for row in rows:
        quality = (
            f"{row['over_mean']:.4f} x mean" if "over_mean" in row else f"gap {row['gap']:.4f}"
        )
        s = row["seconds"]
        print(
            f"{row['case']:76} seed {row['seed']}: {quality}, {s['median']:.3f} s "
            f"({s['least']:.3f} to {s['most']:.3f}){'' if row['met'] else '  NOT MET'}",
            file=table,
        )
    report.deliver(
        arguments.json,
        note="synthetic costs",
        summary={"met": sum(row["met"] for row in rows), "of": len(rows)},
        rows=rows,
    )


if __name__ == "__main__":
    main()
