"""Plans for the GPU benchmarks, as small JSON files that need no planner to read.

    python -m benchmarks.gpu.make_plans [NAME ...] [--data ../shared/data/heads] [--time-limit 10]

A machine with a GPU may have torch, Triton, numpy and nothing else, so plans are made here: for
every profile and context a few representative layers (by the imbalance of stock contiguous
placement: one in the middle of each third), their budgets in blocks and who computes which rows
under each scheme. What is balanced is what will be measured, attention alone: tiles and lists at
rates that our own kernels were measured at, else tiles at the catalogue's rate and an assumed cost
of every list; no link, and copies free as the paper has them. How many copies there are stands
beside each scheme.

The uniform budget is chosen layer by layer: with recovery curves the one at which the layer's
least recovery is that of the adaptive budgets (the hungriest head's), else the one whose causal
tiles come nearest to those of the adaptive budgets.

Names make those inputs alone: all of them take many minutes, and how long the search may take
decides what it finds.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_results.fitting import LIST_BLOCKS
from benchmarks.placement import load
from profiles.catalogue import catalogue_profile, catalogue_rates, measured_rates
from profiles.cost.rates import Rates
from profiles.cost.work import Workload, budget_pieces
from profiles.model import ModelProfile
from profiles.selection import Sampled
from profiles.sizes import DEFAULT_BLOCK_TOKENS, causal_pieces
from solver.planning.planner import make_plan
from solver.plans import Plan
from solver.request import PlanRequest
from solver.rows import RowGrid, boundaries

INPUTS = Path(__file__).parent / "inputs"
CONTEXTS = (32_768, 65_536, 131_072)
DEVICES = 8
LAYERS = 3
PUBLIC = (
    "minference-Llama_3.1_8B_Instruct_128k_kv_out_v32_fit_o_best_pattern",
    "minference-Qwen2.5_7B_Instruct_128k_instruct_kv_out_v32_fit_o_best_pattern",
    "moa-gradientai--Llama-3-8B-Instruct-262k",
    "duo-attention-Meta-Llama-3.1-8B-Instruct",
)
SHORT = {
    PUBLIC[0]: "minference-llama-3.1-8b",
    PUBLIC[1]: "minference-qwen2.5-7b",
    PUBLIC[2]: "moa-llama-3-8b",
    PUBLIC[3]: "duo-llama-3.1-8b",
}
ATTENTION = (
    "launches",
    "query_blocks",
    "dense_tile_flops",
    "gathered_tile_flops",
    "sampled_flops",
    "scored_blocks",
)
"""Features of work that keys and values at hand leave."""
RECOVERIES = (0.9, 0.85)
"""Of the synthetic profile: the paper's, and one that leaves the density a kernel is made for."""
SCHEMES: dict[str, dict[str, Any]] = {
    "adaptive contiguous": {"method": "contiguous"},
    "adaptive greedy": {"method": "greedy"},
    "adaptive exact": {"method": "auto"},
    "adaptive divided": {"method": "auto", "divisible": True},
}
Case = tuple[str, ModelProfile, float | None]


def cases(data: Path) -> list[Case]:
    """Name, profile and recovery target of every input."""
    synthetic = catalogue_profile("llama-3.1-8b-synthetic")
    found: list[Case] = [(f"{synthetic.name}-r{r}", synthetic, r) for r in RECOVERIES]
    # The selector that promises of quality are made for.
    sampled = synthetic.model_copy(update={"selection": Sampled()})
    found.append((f"{synthetic.name}-r{RECOVERIES[0]}-sampled", sampled, RECOVERIES[0]))
    public = {profile.name: profile for profile in load(data, list(PUBLIC))}
    return found + [(SHORT[name], public[name], None) for name in PUBLIC]


def plan_for(
    profile: ModelProfile, context: int, recovery: float | None, scheme: str, limit_s: float
) -> Plan:
    chosen = dict(SCHEMES[scheme])
    request = PlanRequest.model_validate(
        {
            "profile": profile,
            "gpus": DEVICES,
            "context_tokens": context,
            "budget": {"policy": "recovery", "recovery": recovery} if recovery else {},
            "placement": {"copies": "free", "divisible": chosen.pop("divisible", False)},
            "time_limit_s": limit_s,
            **chosen,
        }
    )
    return make_plan(request, [{"h200": attention_rates(profile.architecture.head_dim)}])


def attention_rates(head_dim: int) -> Rates:
    """Of an H200 on which keys and values already lie."""
    whole = catalogue_rates(["h200"], "prefill")["h200"]
    seconds_per = {n: s if n in ATTENTION else 0.0 for n, s in whole.seconds_per.items()}
    source = f"attention alone of: {whole.source}"
    if whole not in measured_rates("h200"):
        # Tables of other kernels say nothing of ours.
        tile_flops = 4 * DEFAULT_BLOCK_TOKENS**2 * head_dim
        seconds_per["query_blocks"] = LIST_BLOCKS * tile_flops * seconds_per["dense_tile_flops"]
        source += f"; {LIST_BLOCKS} blocks a list assumed"
    return whole.model_copy(update={"seconds_per": seconds_per, "source": source})


def blocks_of(plan: Plan, workload: Workload) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Budgets in blocks, which are the pieces here, [layers, heads]."""
    return budget_pieces(np.array(plan.budgets, dtype=np.float64), workload)


def uniform_blocks(
    adaptive: np.ndarray[Any, Any], recovery: float | None, workload: Workload
) -> int:
    """One budget for a layer's heads [heads]: equal least recovery, or equal tiles."""
    if recovery is not None:
        return int(adaptive.max())
    every = np.arange(1, workload.context_blocks + 1)
    wanted = causal_pieces(adaptive, workload.context_blocks).mean()
    return int(every[np.abs(causal_pieces(every, workload.context_blocks) - wanted).argmin()])


def devices_of(plan: Plan, layer: int, blocks: list[int], workload: Workload) -> list[list[Any]]:
    """Per device its heads: a number for a whole one, [head, first row, last row] for a part."""
    shares = plan.placed[layer]
    rows = workload.context_blocks
    ends = boundaries(shares, RowGrid(np.array([blocks]), rows, 1, "prefill"), 0)
    found: list[list[Any]] = [[] for _ in range(DEVICES)]
    for head in range(len(blocks)):
        first = 0
        for device in shares.device[shares.item == head].tolist():
            last = int(ends[head, device])
            if last > first:
                found[device].append(head if (first, last) == (0, rows) else [head, first, last])
            first = max(first, last)
    return found


def kv_copies(devices: list[list[Any]], group_size: int) -> int:
    """(KV group, device) pairs beyond one a group."""
    pairs = {
        ((head if isinstance(head, int) else head[0]) // group_size, device)
        for device, heads in enumerate(devices)
        for head in heads
    }
    return len(pairs) - len({group for group, _ in pairs})


def representative(plan: Plan) -> list[int]:
    """The layer in the middle of each third by the imbalance of its loads."""
    imbalance = [max(layer.loads_s) / np.mean(layer.loads_s) for layer in plan.layers]
    order = np.argsort(imbalance)
    return sorted(int(order[(2 * i + 1) * len(order) // (2 * LAYERS)]) for i in range(LAYERS))


def scheme_of(plan: Plan, layer: int, blocks: list[int], workload: Workload) -> dict[str, Any]:
    devices = devices_of(plan, layer, blocks, workload)
    return {"kv_copies": kv_copies(devices, plan.architecture.group_size), "devices": devices}


def make(case: Case, context: int, layers: list[int], limit_s: float) -> dict[str, Any]:
    """One context of one input file."""
    name, profile, recovery = case
    workload = Workload(context)
    plans = {s: plan_for(profile, context, recovery, s, limit_s) for s in SCHEMES}
    contiguous = plans["adaptive contiguous"]
    layers = layers or representative(contiguous)
    found = []
    for layer in layers:
        adaptive = blocks_of(contiguous, workload)[layer]
        uniform = uniform_blocks(adaptive, recovery, workload)
        found.append(
            {
                "layer": layer,
                "adaptive_blocks": adaptive.tolist(),
                "uniform_blocks": uniform,
                "schemes": {
                    s: scheme_of(plan, layer, adaptive.tolist(), workload)
                    for s, plan in plans.items()
                },
            }
        )
    whole = {s: plan.makespan_s for s, plan in plans.items()}
    print(name, context, layers, {s: f"{1e3 * v:.2f} ms" for s, v in whole.items()}, flush=True)
    return {"context_tokens": context, "predicted_s_all_layers": whole, "layers": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/heads"))
    parser.add_argument("--time-limit", type=float, default=10.0, help="seconds per plan")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of inputs; all by default")
    arguments = parser.parse_args()
    every = {case[0]: case for case in cases(arguments.data)}
    unknown = [name for name in arguments.names if name not in every]
    if unknown:
        parser.error(f"unknown input {unknown[0]!r}: known are {', '.join(every)}")
    for case in (every[name] for name in arguments.names or every):
        name, profile, recovery = case
        contexts: list[dict[str, Any]] = []
        layers: list[int] = []
        for context in reversed(CONTEXTS):
            contexts.insert(0, make(case, context, layers, arguments.time_limit))
            layers = [each["layer"] for each in contexts[0]["layers"]]
        architecture = profile.architecture
        document = {
            "name": name,
            "synthetic": profile.synthetic,
            "source": profile.source,
            "equal": f"minimum recovery {recovery}" if recovery else "total tiles",
            "pattern": profile.selection.kind,
            "query_heads": architecture.query_heads,
            "kv_heads": architecture.kv_heads,
            "head_dim": architecture.head_dim,
            "block_tokens": Workload(CONTEXTS[0]).block_tokens,
            "contexts": contexts,
        }
        text = json.dumps(document, separators=(",", ":"))
        (INPUTS / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
