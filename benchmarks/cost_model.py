"""How well the cost model predicts times it was not fitted on: dense attention on a real H200.

    python benchmarks/cost_model.py [--data ../shared/data/latency] [--json] [--write]

Reads the public tables of ai-dynamo/aiconfigurator (vLLM 0.24.0, FlashAttention-3), counts each
row's work by profiles.cost.work, and compares, on rows held out, the refit of
profiles.cost.regression with the data sheet's roofline and with the plain
a + b * FLOPs + c * bytes.
`--write` stores the rates fitted on all rows in profiles/catalog/devices/h200.json.
"""

import hashlib
import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet as pq
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import nnls

from profiles.architecture import Architecture
from profiles.catalogue import device_profile
from profiles.cost.regression import Refit, refit
from profiles.cost.roofline import roofline
from profiles.cost.samples import Sample
from profiles.cost.work import INDEX, Phase, Workload, group_work, head_work
from profiles.device import DeviceProfile
from profiles.files import write_atomically

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = REPOSITORY / "../shared/data/latency"
CATALOGUE = REPOSITORY / "profiles/catalog/devices/h200.json"
FILES: dict[Phase, str] = {
    "prefill": "h200-vllm-0.24.0/context_attention_perf.parquet",
    "decode": "h200-vllm-0.24.0/generation_attention_perf.parquet",
}
WANTED: dict[str, object] = {
    "kernel_source": "vllm_flash_attn_fa3",
    "attn_dtype": "bfloat16",
    "kv_cache_dtype": "bfloat16",
    "head_dim": 128,
    "window_size": 0,
}
SOURCE = (
    "dense FlashAttention-3 under vLLM 0.24.0 on one H200, tables of ai-dynamo/aiconfigurator "
    "(benchmarks/cost_model.py): not our kernels, nothing sparse in it, no projection, no link"
)
SEED = 0
JUDGED_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Measured:
    """The table's rows: `work` [rows, FEATURES], the rest [rows]; FLOPs and bytes are exact."""

    phase: Phase
    work: Floats
    seconds: Floats
    context_tokens: Ints
    flops: Floats
    moved_bytes: Floats
    impossible: int

    def samples(self, rows: Ints) -> list[Sample]:
        return [
            Sample(self.work[i], self.seconds[i], context_tokens=int(self.context_tokens[i]))
            for i in rows
        ]


def read(data: Path, phase: Phase, device: DeviceProfile) -> Measured:
    """The phase's rows of dense bf16 attention, without those faster than the chip."""
    table = pq.read_table(data / FILES[phase])
    columns = {name: np.array(table[name].to_pylist()) for name in table.column_names}
    wanted = np.all([columns[name] == value for name, value in WANTED.items()], axis=0)
    batch, heads, kv_heads, new, cached = (
        columns[name][wanted]
        for name in ("batch_size", "num_heads", "num_key_value_heads", "isl", "step")
    )
    context, seconds = new + cached, columns["latency"][wanted] * 1e-3
    pairs = new * cached + new * (new + 1) / 2
    flops = 4 * 128 * batch * heads * pairs
    moved = 2 * 128 * batch * (2 * heads * new + 2 * kv_heads * context)
    possible = seconds >= np.maximum(flops / device.peak_flops, moved / device.memory_bandwidth)
    shapes = zip(batch, heads, kv_heads, context, strict=True)
    work = np.array([row_work(phase, *(int(v) for v in shape)) for shape in shapes])
    return Measured(
        phase=phase,
        work=work[possible],
        seconds=seconds[possible],
        context_tokens=context[possible],
        flops=flops[possible],
        moved_bytes=moved[possible],
        impossible=int((~possible).sum()),
    )


def row_work(phase: Phase, batch: int, heads: int, kv_heads: int, context: int) -> Floats:
    """Work of one row, `[FEATURES]`: one device's whole attention, with nothing sent to it."""
    architecture = Architecture(
        layers=1, query_heads=heads, kv_heads=kv_heads, head_dim=128, hidden_size=128 * heads
    )
    workload = Workload(context, phase, batch)
    budgets = np.full((1, heads), float(context))
    by_head = head_work(budgets, architecture, workload)
    by_group = group_work(budgets, architecture, workload)
    work: Floats = by_head.sum(axis=(0, 1)) + by_group.sum(axis=(0, 1))
    work[INDEX["launches"]] = 1
    work[INDEX["link_bytes"]] = 0
    return work


def splits(context_tokens: Ints) -> Iterator[tuple[str, Ints, Ints]]:
    """Name, rows to fit and rows to judge: half at random, then the shortest contexts.

    A context lies on one side of the second split only; its rows are divided as nearly four to
    one as that allows.
    """
    shuffled = np.random.default_rng(SEED).permutation(len(context_tokens))
    half = len(shuffled) // 2
    yield "interior", shuffled[:half], shuffled[half:]
    share_from = {c: np.mean(context_tokens >= c) for c in np.unique(context_tokens)}
    first = min(share_from, key=lambda c: abs(share_from[c] - JUDGED_SHARE))
    long = context_tokens >= first
    yield "extrapolated", np.flatnonzero(~long), np.flatnonzero(long)


def roofline_prediction(device: DeviceProfile, rows: Measured, _: Ints) -> Floats:
    """The prior as it is."""
    return roofline(device, rows.phase).seconds(rows.work)


def plain_prediction(_: DeviceProfile, rows: Measured, train: Ints) -> Floats:
    """a + b * FLOPs + c * bytes, non-negative least squares of relative residuals."""
    work = np.column_stack([np.ones(len(rows.flops)), rows.flops, rows.moved_bytes])
    relative = work[train] / rows.seconds[train, None]
    scale = np.linalg.norm(relative, axis=0)
    coefficients = nnls(relative / scale, np.ones(len(train)))[0] / scale
    return np.asarray(work @ coefficients, dtype=np.float64)


def refit_prediction(device: DeviceProfile, rows: Measured, train: Ints) -> Floats:
    """Ours."""
    return fitted(device, rows, train).rates.seconds(rows.work)


def listless_prediction(device: DeviceProfile, rows: Measured, train: Ints) -> Floats:
    """Ours without the feature `kv_lists`: what that feature is worth."""
    work = rows.work.copy()
    work[:, INDEX["kv_lists"]] = 0
    return refit_prediction(device, replace(rows, work=work), train)


MODELS: dict[str, Callable[[DeviceProfile, Measured, Ints], Floats]] = {
    "roofline": roofline_prediction,
    "plain": plain_prediction,
    "refit": refit_prediction,
    "no kv_lists": listless_prediction,
}


def fitted(device: DeviceProfile, rows: Measured, train: Ints) -> Refit:
    """The refit of some of the rows."""
    return refit(roofline(device, rows.phase), device, rows.samples(train), source=SOURCE)


def judge(device: DeviceProfile, rows: Measured) -> list[dict[str, Any]]:
    """Errors of every model on every split's held-out rows, in percent of the measured time."""
    results = []
    for split, train, judged in splits(rows.context_tokens):
        for model, predict in MODELS.items():
            predicted = predict(device, rows, train)[judged]
            errors = 100 * np.abs(predicted - rows.seconds[judged]) / rows.seconds[judged]
            results.append(
                {
                    "phase": rows.phase,
                    "split": split,
                    "model": model,
                    "fitted_rows": len(train),
                    "judged_rows": len(judged),
                    "fitted_to_tokens": int(rows.context_tokens[train].max()),
                    "judged_from_tokens": int(rows.context_tokens[judged].min()),
                    "mean_error_percent": round(float(errors.mean()), 2),
                    "median_error_percent": round(float(np.median(errors)), 2),
                    "p90_error_percent": round(float(np.quantile(errors, 0.9)), 2),
                }
            )
    return results


def show(results: list[dict[str, Any]]) -> None:
    """The results as a table."""
    table = Table(title="Error on held-out rows, % of the measured time")
    for heading in ("phase", "split", "judged", "model", "mean", "median", "p90"):
        table.add_column(heading, no_wrap=True)
    for r in results:
        errors = (f"{r[f'{figure}_error_percent']:.1f}" for figure in ("mean", "median", "p90"))
        table.add_row(r["phase"], r["split"], str(r["judged_rows"]), r["model"], *errors)
    Console().print(table)


def main(
    data: Annotated[Path, typer.Option(exists=True, help="Folder of the latency tables.")] = DATA,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    write: Annotated[bool, typer.Option(help="Store the rates in the catalogue.")] = False,
) -> None:
    """Fit, judge on held-out rows, print."""
    device = device_profile("h200")
    tables = [read(data, phase, device) for phase in FILES]
    results = [result for rows in tables for result in judge(device, rows)]
    fits = [fitted(device, rows, np.arange(len(rows.seconds))) for rows in tables]
    if write:
        profile = device.model_copy(update={"rates": [fit.rates.rounded for fit in fits]})
        write_atomically(CATALOGUE, profile.model_dump_json(indent=2) + "\n")
    if not as_json:
        show(results)
        return
    report = {
        "command": "python benchmarks/cost_model.py --json",
        "measured_on": "NVIDIA H200, vLLM 0.24.0, FlashAttention-3 (ai-dynamo/aiconfigurator)",
        "fitted_on": f"{platform.machine()} CPU, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("numpy", "scipy", "pyarrow")},
        "sha256": {f: hashlib.sha256((data / f).read_bytes()).hexdigest() for f in FILES.values()},
        "rows": {rows.phase: len(rows.seconds) for rows in tables},
        "rows_faster_than_the_chip": {rows.phase: rows.impossible for rows in tables},
        "held_out": results,
        "fit_of_all_rows": [
            asdict(fit) | {"rates": fit.rates.rounded.model_dump()} for fit in fits
        ],
    }
    typer.echo(json.dumps(report, indent=2))


if __name__ == "__main__":
    typer.run(main)
