"""Placements side by side on the heads of real models: predicted seconds on H200 devices.

    python benchmarks/placement.py [--profiles NAME,...] [--gpus 2,4,8,16] [--time-limit 10]
    python benchmarks/placement.py --slots [the same]

Stock contiguous placement, xDiT's snake, EPLB's packing, the best of prtpy's heuristics (where
prtpy is installed: pip install prtpy), the paper's greedy, our equal counts, our free counts and
our divided heads, at 131,072 tokens under both deployments, and with copies free as the paper
has it. Every plan passes the independent verifier. Prints a table, then the aims and where they
fail; with --json prints or writes every figure. With --slots, of what stock engines run: as many KV
slots a device as hold every group, and one more.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.prtpy_packing import packed
from profiles.catalogue import catalogue_rates
from profiles.importers import duo_attention, minference, moa, tangram
from profiles.model import ModelProfile
from profiles.public_models import resolve_architecture
from solver.planning.planner import make_plan
from solver.planning.predict import planned_problem
from solver.plans import Plan
from solver.request import PlanRequest
from solver.verifier import verify

CONTEXT = 131_072
READERS = {
    "minference": minference.read,
    "moa": moa.read,
    "duo-attention": duo_attention.read,
    "tangram": tangram.read,
}
SETTINGS = {
    "disaggregated": {"deployment": "disaggregated"},
    "tensor_parallel": {"deployment": "tensor_parallel"},
    "disaggregated, copies free": {"deployment": "disaggregated", "copies": "free"},
}
METHODS: dict[str, dict[str, Any]] = {
    "contiguous": {"method": "contiguous"},
    "snake": {"method": "snake"},
    "eplb": {"method": "greedy_equal"},
    "greedy": {"method": "greedy"},
    "equal": {"method": "auto", "equal_counts": True},
    "free": {"method": "auto"},
    "divided": {"method": "auto", "divisible": True},
}
COLUMNS = ("contiguous", "snake", "eplb", "prtpy", "greedy", "equal", "free", "divided")
Row = dict[str, Any]


def load(data: Path, names: list[str] | None) -> Iterator[ModelProfile]:
    """Every importable file below `data`, or those whose name contains one of `names`."""
    for path in sorted(data.glob("*/*")):
        name = f"{path.parent.name}-{path.stem}"[:128]
        if path.parent.name not in READERS or (names and not any(n in name for n in names)):
            continue
        architecture = resolve_architecture(path)
        options: dict[str, Any] = {"full_share": 0.5} if path.parent.name == "duo-attention" else {}
        yield READERS[path.parent.name](path, name, architecture, **options)


def request(
    profile: ModelProfile, gpus: int, setting: str, method: str, limit: float
) -> PlanRequest:
    chosen = {**SETTINGS[setting], **METHODS[method]}
    rules = {k: chosen.pop(k) for k in ("copies", "equal_counts", "divisible") if k in chosen}
    return PlanRequest.model_validate(
        {
            "profile": profile,
            "gpus": gpus,
            "context_tokens": CONTEXT,
            "placement": rules,
            "time_limit_s": limit,
            **chosen,
        }
    )


def row(name: str, setting: str, method: str, plan: Plan, mean_s: float) -> Row:
    return {
        "profile": name,
        "gpus": len(plan.devices),
        "setting": setting,
        "method": method,
        "makespan_s": plan.makespan_s,
        "lower_bound_s": plan.lower_bound_s,
        "gap": plan.gap,
        "over_mean": plan.makespan_s / mean_s,
        "bubble_ratio": plan.bubble_ratio,
        "divisions": sum(plan.divisions),
        "kv_copies": sum(plan.kv_copies),
        "kv_bytes": max(plan.kv_bytes),
        "solve_s": plan.solve_s,
    }


def measure(profile: ModelProfile, gpus: int, setting: str, limit: float) -> list[Row]:
    rates = catalogue_rates(["h200"], "prefill")
    rows: list[Row] = []
    mean_s = 0.0
    for method in METHODS:
        plan = make_plan(request(profile, gpus, setting, method, limit), [rates])
        faults = verify(plan, time_limit_s=0).faults
        assert not faults, (profile.name, gpus, setting, method, faults[:3])
        if method == "contiguous":
            mean_s = mean_load_s(plan)
            rows += packed(profile.name, setting, plan, mean_s)
        rows.append(row(profile.name, setting, method, plan, mean_s))
    # What is proved of free counts holds of every whole placement, equal counts included.
    proved_s = max(r["lower_bound_s"] for r in rows if r["method"] == "free")
    for each in rows:
        if each["method"] not in ("equal", "divided"):
            each["lower_bound_s"] = max(each["lower_bound_s"], proved_s)
            each["gap"] = 1 - each["lower_bound_s"] / each["makespan_s"]
    return rows


def measure_slots(profile: ModelProfile, gpus: int, limit: float) -> list[Row]:
    """Contiguous and divided placements in the least slots, and both ways of HPLB in one more.

    `attention_over_mean` is what is left of the makespan without the projections of the least
    slots, over the mean of attention's work: slots beyond the least count in full.
    """
    rates = catalogue_rates(["h200"], "prefill")
    least = -(-profile.architecture.kv_heads // gpus)
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "contiguous, least": ("contiguous", {"slots": least}),
        "divided, least": ("auto", {"slots": least, "divisible": True}),
        "whole, one more": ("auto", {"slots": least + 1}),
        "divided, one more": ("auto", {"slots": least + 1, "divisible": True}),
    }
    rows: list[Row] = []
    base_s = mean_s = 0.0
    for name, (method, rules) in asked.items():
        request = PlanRequest.model_validate(
            {
                "profile": profile,
                "gpus": gpus,
                "context_tokens": CONTEXT,
                "placement": rules,
                "method": method,
                "time_limit_s": limit,
            }
        )
        plan = make_plan(request, [rates])
        faults = verify(plan, time_limit_s=0).faults
        assert not faults, (profile.name, gpus, name, faults[:3])
        if name == "contiguous, least":
            base_s = len(plan.layers) * plan.costs.launch_s[0]
            mean_s = mean_load_s(plan) - base_s
        found = row(profile.name, "slots", name, plan, base_s + mean_s)
        assert plan.padding is not None  # it was asked for slots
        found["slots"] = plan.slots
        found["attention_over_mean"] = (plan.makespan_s - base_s) / mean_s
        found["pays_from_tokens"] = plan.padding.pays_from_tokens
        rows.append(found)
    return rows


def mean_load_s(plan: Plan) -> float:
    """All heads and one charge a group spread evenly: what copies at no cost could reach."""
    problem = planned_problem(plan)
    work = problem.head_s[0, :, :, 0].sum() + problem.group_s[0, :, :, 0].sum()
    return float(work / problem.devices + problem.layers * problem.launch_s[0, 0])


def aims(rows: list[Row]) -> dict[str, Any]:
    """What the goals ask, each with how many problems meet it and which do not."""
    by_problem: dict[tuple[str, int, str], dict[str, Row]] = {}
    for each in rows:
        key = (each["profile"], each["gpus"], each["setting"])
        by_problem.setdefault(key, {})[each["method"]] = each
    free = {k: v for k, v in by_problem.items() if k[2].endswith("free")}
    s = "makespan_s"
    checks = {
        "copies free: divided at most 1 % over the mean": {
            k: v["divided"]["over_mean"] <= 1.01 for k, v in free.items()
        },
        "divided never worse than free counts": {
            k: v["divided"][s] <= v["free"][s] * (1 + 1e-9) for k, v in by_problem.items()
        },
        "equal counts never worse than EPLB or snake": {
            k: v["equal"][s] <= min(v["eplb"][s], v["snake"][s]) * (1 + 1e-9)
            for k, v in by_problem.items()
        },
        "equal counts proved within 0.5 %": {
            k: v["equal"]["gap"] <= 0.005 for k, v in by_problem.items()
        },
        "free counts proved within 0.5 %": {
            k: v["free"]["gap"] <= 0.005 for k, v in by_problem.items()
        },
    }
    return {
        aim: {
            "met": sum(met.values()),
            "of": len(met),
            "not_met": [" ".join(map(str, key)) for key, fine in met.items() if not fine],
        }
        for aim, met in checks.items()
    }


def line(rows: list[Row]) -> str:
    """One problem: makespan over the mean load by method, then what divided costs and proves."""
    by_method = {each["method"]: each for each in rows}
    cells = [f"{by_method[m]['over_mean']:.3f}" if m in by_method else "-" for m in COLUMNS]
    cut, free, equal = by_method["divided"], by_method["free"], by_method["equal"]
    return (
        f"| {rows[0]['profile'][:40]} | {rows[0]['gpus']} | {rows[0]['setting']} | "
        + " | ".join(cells)
        + f" | {100 * equal['gap']:.2f} | {100 * free['gap']:.2f} | {100 * cut['gap']:.2f} "
        f"| {cut['divisions']} | {free['kv_copies']} / {cut['kv_copies']} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/heads"))
    parser.add_argument("--profiles", help="parts of names, comma-separated; all unless given")
    parser.add_argument("--gpus", default="2,4,8,16")
    parser.add_argument("--slots", action="store_true", help="what stock engines run instead")
    parser.add_argument("--time-limit", type=float, default=10.0, help="seconds per searched plan")
    arguments = report.arguments(parser)
    names = arguments.profiles.split(",") if arguments.profiles else None
    gpus = [int(part) for part in arguments.gpus.split(",")]
    table = report.table_to(arguments.json)
    if arguments.slots:
        in_slots = [
            found
            for profile in load(arguments.data, names)
            for count in gpus
            if profile.architecture.kv_heads > -(-profile.architecture.kv_heads // count)
            for found in measure_slots(profile, count, arguments.time_limit)
        ]
        for each in in_slots:
            print(
                f"{each['profile'][:40]} {each['gpus']} {each['slots']} {each['method']}: "
                f"{each['over_mean']:.3f}, attention {each['attention_over_mean']:.3f}",
                file=table,
            )
        note = "predicted seconds (H200 rates fitted on dense FlashAttention-3), not measured"
        report.deliver(arguments.json, note=note, rows=in_slots)
        return
    print("makespan over the mean load (every group charged once); gaps in %", file=table)
    heads = [*COLUMNS, "equal gap", "free gap", "divided gap", "divisions", "copies free/divided"]
    print("| profile | GPUs | setting | " + " | ".join(heads) + " |", file=table)
    print("|" + "---|" * (3 + len(heads)), file=table)
    rows: list[Row] = []
    for profile in load(arguments.data, names):
        for count in gpus:
            for setting in SETTINGS:
                found = measure(profile, count, setting, arguments.time_limit)
                rows += found
                print(line(found), file=table, flush=True)
    if not rows:
        parser.error(f"no profile below {arguments.data} matches {arguments.profiles!r}")
    reached = aims(rows)
    for aim, result in reached.items():
        print(f"{aim}: {result['met']} of {result['of']}", file=table)
        for key in result["not_met"]:
            print(f"    not: {key}", file=table)
    report.deliver(
        arguments.json,
        note="predicted seconds (H200 rates fitted on dense FlashAttention-3), not measured",
        aims=reached,
        rows=rows,
    )


if __name__ == "__main__":
    main()
