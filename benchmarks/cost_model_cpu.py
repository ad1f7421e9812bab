"""How well the cost model predicts shares of a layer that it was not fitted on: our CPU back end.

    python -m benchmarks.cost_model_cpu [--rounds 12] [--rows FILE] [--quick] [--json [FILE]]

Two layers of Llama-3.2-1B's shape (32 heads, 8 KV heads, head_dim 64) with unlike budgets, drawn
log-uniformly so that one head in six attends to everything; 4,096 tokens, keys chosen by eight
sampled rows of a query block. Each is placed on 2, 4 and 8 devices as it stands, greedily and
divided, and every device's share timed as executors time it: alone on one core, random tensors.
Rates are fitted on one layer's shares and judged on the other's, both ways. A share's time is the
median of its rounds, which take turns.

Beside the features that the back end declares: all there are, tiles alone, and those of before,
when sampled rows counted as tiles and gathered was what belonged to a head with a budget below the
context. --rows judges the rows of an earlier report and times nothing. --quick: 512 tokens, two
rounds.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import report
from executor.attention.step import prepare
from executor.node.bench import Bench
from executor.node.shard import LayerShard, layer_shard
from profiles.architecture import Architecture
from profiles.catalogue import catalogue_profile, device_profile
from profiles.cost.regression import Refit, refit
from profiles.cost.roofline import roofline
from profiles.cost.samples import Floats, Sample
from profiles.cost.work import FEATURES, INDEX
from profiles.device import DeviceProfile
from profiles.heads import BudgetsForm
from profiles.model import ModelProfile
from profiles.selection import SAMPLED
from solver.planning.planner import plan
from solver.plans import Plan

Row = dict[str, Any]
CPU = device_profile("cpu")
TOKENS, QUICK_TOKENS = 4096, 512
LAYERS = (0, 1)
SHAPE = Architecture(layers=2, query_heads=32, kv_heads=8, head_dim=64, hidden_size=2048)
PLACED: dict[str, dict[str, Any]] = {
    "contiguous": {"method": "contiguous"},
    "greedy": {"method": "greedy"},
    "divided": {"divisible": True},
}
DEVICES = (2, 4, 8)
SEED = 0


def unlike_heads(tokens: int) -> ModelProfile:
    """Budgets from a thirty-second of the context to all of it, [2, 32]."""
    drawn = tokens * 2.0 ** np.random.default_rng(SEED).uniform(-5, 1, (2, SHAPE.query_heads))
    heads = BudgetsForm(tokens=np.minimum(drawn, tokens).tolist())
    changed = {"architecture": SHAPE, "heads": heads, "selection": SAMPLED}
    return catalogue_profile("llama-3.1-8b-synthetic").model_copy(update=changed)


def plans(tokens: int) -> dict[str, Plan]:
    """Every placement on every number of devices, by name."""
    asked = {"device_type": "cpu", "context_tokens": tokens, "seed": SEED}
    return {
        f"{name}, {devices} devices": plan(unlike_heads(tokens), gpus=devices, **asked, **how)
        for devices in DEVICES
        for name, how in PLACED.items()
    }


def timed(tokens: int, rounds: int) -> list[Row]:
    """A row for every share: what it did, and its seconds in every round."""
    bench, placed = Bench(["cpu"], "torch"), plans(tokens)
    shards = {
        (name, layer, device): layer_shard(each, device, layer)
        for name, each in placed.items()
        for layer in LAYERS
        for device in range(len(each.devices))
    }
    rows: dict[tuple[str, int, int], Row] = {}
    for _ in range(rounds):
        for (name, layer, device), shard in shards.items():
            sample = bench.measure(shard, 0, lambda: False)
            if sample is None:
                continue
            first = {
                "plan": name,
                "layer": layer,
                "device": device,
                "work": sample.work,
                "sparse_head_flops": sparse_head_flops(shard),
                "seconds": [],
            }
            rows.setdefault((name, layer, device), first)["seconds"].append(sample.seconds)
    return list(rows.values())


def sparse_head_flops(shard: LayerShard) -> float:
    """FLOPs of all tiles of heads with a budget below the context."""
    workload = shard.workload
    sparse = [s for s in shard.shares if s.budget_tokens < workload.context_tokens]
    block, piece = workload.block_tokens, workload.piece_tokens
    tiles = prepare(sparse, shard.chunks, block, piece_tokens=piece).counts.tiles
    return 4.0 * block * piece * SHAPE.head_dim * tiles


def of(**counts: float) -> Floats:
    """Work with these counts, `[FEATURES]`."""
    work = np.zeros(len(FEATURES))
    for name, count in counts.items():
        work[INDEX[name]] = count
    return work


def tiles_alone(row: Row) -> Floats:
    """FLOPs of tiles and nothing else."""
    work = row["work"]
    return of(dense_tile_flops=work["dense_tile_flops"] + work["gathered_tile_flops"])


def as_before(row: Row) -> Floats:
    """Sampled rows counted as tiles, and heads told apart instead of tiles."""
    work = row["work"]
    kinds = ("dense_tile_flops", "gathered_tile_flops", "sampled_flops")
    sparse = row["sparse_head_flops"]
    merged = {
        "dense_tile_flops": sum(work[kind] for kind in kinds) - sparse,
        "gathered_tile_flops": sparse,
        "sampled_flops": 0.0,
    }
    return of(**work | merged)


def as_counted(row: Row) -> Floats:
    """As executors count it."""
    return of(**row["work"])


EVERY_FEATURE = CPU.model_copy(update={"backend": "triton"})
MODELS: dict[str, tuple[DeviceProfile, Callable[[Row], Floats]]] = {
    "tiles alone": (CPU, tiles_alone),
    "before": (EVERY_FEATURE, as_before),
    "every feature": (EVERY_FEATURE, as_counted),
    "declared": (CPU, as_counted),
}


def samples(rows: list[Row], work: Callable[[Row], Floats]) -> list[Sample]:
    return [Sample(work(row), median(row["seconds"]), context_tokens=TOKENS) for row in rows]


def spread(seconds: list[float]) -> float:
    """Half of what lies between a share's quartiles, over its median."""
    low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75))
    return float((high - low) / 2 / middle)


def fitted(model: str, rows: list[Row]) -> Refit:
    """The refit of a model's features."""
    device, work = MODELS[model]
    return refit(roofline(device, "prefill"), device, samples(rows, work))


def judged(rows: list[Row]) -> list[Row]:
    """Errors of every model, in percent of the measured time, both ways together."""
    found = []
    for model, (_, work) in MODELS.items():
        errors = []
        for layer in LAYERS:
            rates = fitted(model, [row for row in rows if row["layer"] == layer]).rates
            for sample in samples([row for row in rows if row["layer"] != layer], work):
                predicted = float(rates.seconds(sample.work))
                errors.append(100 * abs(predicted - sample.seconds) / sample.seconds)
        found.append(
            {
                "model": model,
                "judged_rows": len(errors),
                "mean_error_percent": round(float(np.mean(errors)), 2),
                "median_error_percent": round(float(np.median(errors)), 2),
                "p90_error_percent": round(float(np.quantile(errors, 0.9)), 2),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--rows", type=Path, help="a report whose rows are judged again")
    parser.add_argument("--quick", action="store_true")
    args = report.arguments(parser)
    tokens, rounds = (QUICK_TOKENS, 2) if args.quick else (TOKENS, args.rounds)
    if args.rows:
        earlier = json.loads(args.rows.read_text())
        tokens, rounds, rows = (earlier[name] for name in ("tokens", "rounds", "rows"))
    else:
        rows = timed(tokens, rounds)
    found = judged(rows)
    table = Table(title="Error on the other layer's shares, % of the measured time")
    for heading in ("features", "shares", "mean", "median", "p90"):
        table.add_column(heading)
    for result in found:
        table.add_row(*(str(value) for value in result.values()))
    Console(file=report.table_to(args.json)).print(table)
    fit = fitted("declared", rows)
    report.deliver(
        args.json,
        tokens=tokens,
        rounds=rounds,
        spread_percent=round(100 * median(spread(row["seconds"]) for row in rows), 1),
        held_out=found,
        fit_of_all_rows={
            "seconds_per": fit.rates.rounded.seconds_per,
            "std": fit.rates.rounded.std,
            "pegged": fit.pegged,
        },
        rows=rows,
    )


if __name__ == "__main__":
    main()
