"""What prtpy's heuristics make of a plan's layers, for benchmarks/placement.py."""

import time
from typing import Any

import numpy as np

from solver.planning.predict import planned_problem
from solver.plans import Plan


def packed(name: str, setting: str, contiguous: Plan, mean_s: float) -> list[dict[str, Any]]:
    """The best per layer of prtpy's heuristics, which see the heads and not the charges."""
    try:
        import prtpy
    except ImportError:
        return []
    problem = planned_problem(contiguous)
    started, makespan_s, busy_s, copies = time.monotonic(), 0.0, 0.0, 0
    for index in range(problem.layers):
        layer = problem.layer(index)
        items = {i: round(1e9 * s) for i, s in enumerate(layer.item_s[0, :, 0].tolist())}
        found = []
        for algorithm in ("greedy", "multifit", "karmarkar_karp"):
            bins = prtpy.partition(
                algorithm=getattr(prtpy.partitioning, algorithm),
                numbins=layer.devices,
                items=items,
                outputtype=prtpy.out.Partition,
            )
            device = np.empty(layer.items, dtype=np.int64)
            for d, members in enumerate(bins):
                device[list(members)] = d
            found.append(device)
        best = min(found, key=layer.makespan)
        makespan_s += layer.makespan(best)
        busy_s += float(layer.loads(best).sum())
        pairs = {(int(layer.group_of[i]), int(best[i])) for i in range(layer.items)}
        copies += len(pairs) - layer.groups
    return [
        {
            "profile": name,
            "gpus": problem.devices,
            "setting": setting,
            "method": "prtpy",
            "makespan_s": makespan_s,
            "lower_bound_s": 0.0,
            "gap": 1.0,
            "over_mean": makespan_s / mean_s,
            "bubble_ratio": 1 - busy_s / (problem.devices * makespan_s),
            "divisions": 0,
            "kv_copies": copies,
            "kv_bytes": None,
            "solve_s": time.monotonic() - started,
        }
    ]
