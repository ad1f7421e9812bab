"""Placement methods side by side on the heads of real models: predicted seconds on H200 devices.

    python benchmarks/placement.py [--data ../shared/data/heads] [--time-limit 5] [--json FILE]

Imports six public files (four heterogeneous, two where there is nothing to gain), plans them with
every method for 2, 4 and 8 devices and both deployments at 131,072 tokens, verifies each plan with
the independent verifier, and prints one line per profile and device count.
"""

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

from profiles.cost.catalogue import catalogue_rates
from profiles.importers import duo_attention, minference, moa
from profiles.model import ModelProfile
from profiles.models import resolve_architecture
from solver.compare import METHODS, Row, by_problem, compare
from solver.request import PlanRequest
from solver.verify import verify

MINFERENCE = "minference/{}_best_pattern.json"
LLAMA, QWEN = "Llama_3.1_8B_Instruct_128k_kv_out_v32_fit_o", "128k_instruct_kv_out_v32_fit_o"
SOURCES = {
    "minference-llama-3.1-8b": (minference.read, MINFERENCE.format(LLAMA)),
    "minference-qwen2.5-7b": (minference.read, MINFERENCE.format(f"Qwen2.5_7B_Instruct_{QWEN}")),
    "moa-llama-3-8b": (moa.read, "moa/gradientai--Llama-3-8B-Instruct-262k.json"),
    "duo-llama-2-7b": (duo_attention.read, "duo-attention/Llama-2-7B-32K-Instruct.tsv"),
    "minference-llama-3.1-8b-v2": (
        minference.read,
        "minference/Llama_3.1_8B_Instruct_128k_kv_out_v32_fit_o_best_pattern_v2.json",
    ),
    "minference-qwen2.5-72b": (
        minference.read,
        MINFERENCE.format("Qwen2.5_72B_Instruct_128k_kv_out_v32_fit_o"),
    ),
}
CONTEXT = 131_072


def load(data: Path, name: str) -> ModelProfile:
    read, file = SOURCES[name]
    path = data / file
    options: dict[str, Any] = {"full_share": 0.5} if read is duo_attention.read else {}
    return read(path, name, resolve_architecture(path), **options)


def measure(profile: ModelProfile, time_limit_s: float) -> list[Row]:
    requests = [
        PlanRequest.model_validate(
            {
                "profile": profile.name,
                "gpus": gpus,
                "context_tokens": CONTEXT,
                "deployment": deployment,
                "method": method,
                "time_limit_s": time_limit_s,
            }
        )
        for gpus in (2, 4, 8)
        for deployment in ("disaggregated", "tensor_parallel")
        for method in METHODS
    ]
    rates = catalogue_rates(["h200"], "prefill")
    rows = compare(requests, profile, rates, lambda _: None, lambda _: None)
    for row in rows:
        faults = verify(json.loads(row.plan.model_dump_json()))
        assert not faults, (profile.name, row.plan.solver, faults)
    return rows


def markdown(name: str, rows: list[Row]) -> str:
    """Makespan over the best proven bound (and K/V copies) per method, one line per problem."""
    lines = []
    for members in by_problem(rows).values():
        plan = members[0].plan
        cells = [f"{row.over_bound:.3f} ({sum(row.plan.kv_copies)})" for row in members]
        lines.append(
            f"| {name} | {len(plan.devices)} | {plan.workload.deployment} | "
            + " | ".join(cells)
            + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/heads"))
    parser.add_argument("--time-limit", type=float, default=5.0)
    parser.add_argument("--json", type=Path, help="write the rows and the machine here")
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "command": f"python benchmarks/placement.py --time-limit {arguments.time_limit:g}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "note": "predicted seconds (H200 rates fitted on dense FlashAttention-3), not measured",
        "profiles": {},
    }
    print("| profile | GPUs | deployment | " + " | ".join(METHODS) + " |")
    print("|" + "---|" * (3 + len(METHODS)))
    for name in SOURCES:
        rows = measure(load(arguments.data, name), arguments.time_limit)
        print(markdown(name, rows), flush=True)
        results["profiles"][name] = [row.to_json() for row in rows]
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
