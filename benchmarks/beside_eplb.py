"""`place` beside EPLB's balanced packing on the same random costs: equal counts, no replicas.

    python -m benchmarks.beside_eplb [--layers 16] [--draws 5] [--time-limit 2] [--json [FILE]]

EPLB (deepseek-ai/EPLB) packs items, longest first, each into the lightest pack that has room, so
that all packs hold as many. Here in our own lines; `place` gets nothing but the costs. Prints for
each distribution and size the mean and worst makespan of `place` over EPLB's, the gap proved, and
the seconds of both.
"""

import argparse
import time
from typing import Any

import numpy as np

from benchmarks import report
from solver import place

SIZES = ((32, 8), (64, 8), (128, 16), (256, 32))
"""Heads a layer, and devices."""


def balanced_packing(costs: np.ndarray, packs: int) -> np.ndarray:
    """The pack of every item, `[layers, items]`, for costs of the same shape."""
    layers, items = costs.shape
    each = items // packs
    found = np.zeros((layers, items), dtype=np.int64)
    for layer in range(layers):
        loads, held = np.zeros(packs), np.zeros(packs, dtype=np.int64)
        for item in np.argsort(-costs[layer], kind="stable"):
            pack = int(np.where(held < each, loads, np.inf).argmin())
            found[layer, item] = pack
            loads[pack] += costs[layer, item]
            held[pack] += 1
    return found


def makespan(costs: np.ndarray, pack_of: np.ndarray, packs: int) -> float:
    """The sum of the layers' largest loads."""
    return sum(
        float(np.bincount(packed, cost, packs).max())
        for cost, packed in zip(costs, pack_of, strict=True)
    )


def draw(name: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    match name:
        case "uniform":
            return rng.uniform(0.1, 1.0, shape)
        case "log-normal":
            return rng.lognormal(0, 1, shape)
        case "two-valued":
            return rng.choice([1.0, 32.0], shape)
    return rng.pareto(1.5, shape) + 1


def measure(name: str, heads: int, devices: int, arguments: argparse.Namespace) -> dict[str, Any]:
    ratios, gaps, seconds = [], [], {"eplb": 0.0, "place": 0.0}
    for seed in range(arguments.draws):
        costs = draw(name, (arguments.layers, heads), np.random.default_rng(seed))
        began = time.perf_counter()
        theirs = makespan(costs, balanced_packing(costs, devices), devices)
        seconds["eplb"] += time.perf_counter() - began
        began = time.perf_counter()
        ours = place(costs, devices, equal_counts=True, time_limit_s=arguments.time_limit)
        seconds["place"] += time.perf_counter() - began
        assert (ours.shares.sum(axis=1) == heads // devices).all()
        ratios.append(makespan(costs, ours.device_of_head, devices) / theirs)
        gaps.append(ours.gap)
    return {
        "costs": name,
        "heads": heads,
        "devices": devices,
        "mean_ratio": float(np.mean(ratios)),
        "best_ratio": float(np.min(ratios)),
        "worst_ratio": float(np.max(ratios)),
        "worst_gap": float(np.max(gaps)),
        "eplb_s": seconds["eplb"] / arguments.draws,
        "place_s": seconds["place"] / arguments.draws,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--time-limit", type=float, default=2.0, help="seconds, for all layers")
    arguments = report.arguments(parser)
    table = report.table_to(arguments.json)
    print("| costs | heads | devices | place / EPLB | gap % | EPLB s | place s |", file=table)
    print("|---|---|---|---|---|---|---|", file=table)
    rows = []
    for name in ("uniform", "log-normal", "two-valued", "pareto"):
        for heads, devices in SIZES:
            row = measure(name, heads, devices, arguments)
            rows.append(row)
            print(
                f"| {name} | {heads} | {devices} | {row['mean_ratio']:.4f} "
                f"({row['best_ratio']:.4f} to {row['worst_ratio']:.4f}) "
                f"| {100 * row['worst_gap']:.2f} | {row['eplb_s']:.3f} | {row['place_s']:.3f} |",
                file=table,
                flush=True,
            )
    worse = sum(row["worst_ratio"] > 1 + 1e-12 for row in rows)
    print(f"larger than EPLB's: {worse} of {len(rows)}", file=table)
    report.deliver(arguments.json, layers=arguments.layers, draws=arguments.draws, rows=rows)


if __name__ == "__main__":
    main()
