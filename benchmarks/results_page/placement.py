"""Placements of real models' heads: `benchmarks/placement.py`."""

from collections.abc import Callable
from statistics import median

from benchmarks.results_page.reports import Report, Reports, grid, percent, share

GPUS = 8
NAMES = {
    "duo-attention-Llama-2-7B-32K-Instruct": "DuoAttention Llama-2-7B",
    "duo-attention-Meta-Llama-3.1-8B-Instruct": "DuoAttention Llama-3.1-8B",
    "minference-Llama_3.1_8B_Instruct_128k_kv_out_v32_fit_o_best_pattern": "MInference "
    "Llama-3.1-8B",
    "minference-Llama_3.1_8B_Instruct_128k_kv_out_v32_fit_o_best_pattern_v2": "MInference "
    "Llama-3.1-8B, uniform",
    "minference-Qwen2.5_72B_Instruct_128k_kv_out_v32_fit_o_best_pattern": "MInference Qwen2.5-72B",
    "minference-Qwen2.5_7B_Instruct_128k_instruct_kv_out_v32_fit_o_best_pattern": "MInference "
    "Qwen2.5-7B",
    "moa-gradientai--Llama-3-8B-Instruct-262k": "MoA Llama-3-8B",
    "moa-lmsys--vicuna-7b-v1.5-16k": "MoA vicuna-7b",
    "moa-meta-llama--Llama-3.2-1B-Instruct": "MoA Llama-3.2-1B",
    "tangram-keydiff__llama-3.1-8b-instruct__profile_perlayer": "TANGRAM keydiff Llama-3.1-8B",
    "tangram-snapkv__llama-3.1-8b-instruct__profile_perlayer": "TANGRAM snapkv Llama-3.1-8B",
    "tangram-snapkv__qwen3-4b-instruct-2507__profile_perlayer": "TANGRAM snapkv Qwen3-4B",
}
PRICED, PARALLEL, FREE = "disaggregated", "tensor_parallel", "disaggregated, copies free"
SETTINGS = {PRICED: "disagg.", PARALLEL: "TP", FREE: "disagg., copies free"}
PEERS = {
    "contiguous": "contiguous",
    "snake": "snake",
    "eplb": "EPLB",
    "prtpy": "prtpy",
    "greedy": "greedy",
}
OURS = {"equal": "equal (gap)", "free": "free (gap)", "divided": "divided (gap)"}
SHOWN = (
    ("duo-attention-Llama-2-7B-32K-Instruct", PRICED),
    ("duo-attention-Meta-Llama-3.1-8B-Instruct", PRICED),
    ("moa-gradientai--Llama-3-8B-Instruct-262k", PRICED),
    ("minference-Llama_3.1_8B_Instruct_128k_kv_out_v32_fit_o_best_pattern", PARALLEL),
    ("minference-Qwen2.5_72B_Instruct_128k_kv_out_v32_fit_o_best_pattern", PARALLEL),
)
"""The README's five: three sources of profiles, one where scattering loses, one with no gain."""
NO_GAIN = 1.01
IN_SLOTS = ("contiguous, least", "divided, least", "whole, one more", "divided, one more")

Problem = tuple[str, int, str]
Problems = dict[Problem, dict[str, Report]]


def problems(report: Report) -> Problems:
    """Rows by (profile, GPUs, setting), then by method."""
    found: Problems = {}
    for row in report["rows"]:
        key = (row["profile"], row["gpus"], row["setting"])
        found.setdefault(key, {})[row["method"]] = row
    return found


def readme_table(reports: Reports) -> str:
    """Six rows for the README."""
    report = reports["placement"]
    found = problems(report)
    rows = []
    for profile, setting in SHOWN:
        by_method = found[profile, GPUS, setting]
        cells = [_over(by_method[name]) for name in ("contiguous", "eplb", "greedy", "free")]
        rows.append(
            [f"{NAMES[profile]}, {SETTINGS[setting]}", *cells, _over_and_gap(by_method["divided"])]
        )
    heads = ("profile, setting", "contiguous", "EPLB", "greedy (paper)", "HPLB", "HPLB, divided")
    told = f"`{report['command'].partition(' --json')[0]}`, {report['machine']}"
    return f"{grid(heads, rows)}\n{told}."


def section(reports: Reports) -> str:
    report = reports["placement"]
    found = problems(report)
    return f"""\
## Placement on the heads of real models

Makespan over the mean load (all heads and one K/V charge a group, spread evenly), 131,072 tokens,
{GPUS} GPUs; in brackets how far the plan may be from the best possible, proved. **Predicted, not
measured**: costs are the fitted H200 rates of [the cost model](#the-cost-model). Heads that share a
KV head cost a K/V transfer (disagg., the paper's assumption) or a K/V projection (TP, tensor
parallel) on every device they are spread over; that charge is in every method's load, also where
the method does not look at it. With `copies free` it is charged once a group. `prtpy` is the best
per layer of that package's greedy, MULTIFIT and Karmarkar-Karp, which look at the heads alone.
`greedy` is the paper's; `equal` (the same number of heads a device), `free` and `divided` are
HPLB's. `copies` are (KV group, device) pairs beyond one a group. The public files are not in the
repository.

{reports.source("placement")}
{_table(found)}
Every plan passed the independent verifier. All {len(found)} problems (2 to 16 GPUs) are in the
file; over all of them:

{_aims(report)}
{_against_contiguous(found)}
{_against_peers(found)}
{_rules(found)}
{_nothing_to_gain(found)}
{_slots(reports)}
"""


def _over(row: Report) -> str:
    return f"{row['over_mean']:.3f}"


def _over_and_gap(row: Report) -> str:
    return f"{_over(row)} ({percent(row['gap'])})"


def _table(found: Problems) -> str:
    rows = []
    for profile in dict.fromkeys(profile for profile, _, _ in found):
        for setting, told in SETTINGS.items():
            by_method = found[profile, GPUS, setting]
            free, divided = by_method["free"], by_method["divided"]
            rows.append(
                [
                    NAMES.get(profile, profile),
                    told,
                    *(_over(by_method[name]) if name in by_method else "-" for name in PEERS),
                    *(_over_and_gap(by_method[name]) for name in OURS),
                    str(divided["divisions"]),
                    f"{free['kv_copies']} / {divided['kv_copies']}",
                ]
            )
    heads = ("profile", "setting", *PEERS.values(), *OURS.values())
    return grid((*heads, "divisions", "copies free / divided"), rows)


def _aims(report: Report) -> str:
    rows = [
        (aim, share(reached), ", ".join(reached["not_met"]) or "none")
        for aim, reached in report["aims"].items()
    ]
    return grid(("aim", "met", "not met by"), rows)


def _against_contiguous(found: Problems) -> str:
    """How often each method is worse than stock contiguous placement, and the worst of it."""
    rows = []
    for method, told in (PEERS | {"equal": "equal", "free": "free", "divided": "divided"}).items():
        if method == "contiguous":
            continue
        behind, of, worst, where = _behind(found, method, lambda rows: rows["contiguous"])
        if behind:
            copies = found[where][method]["kv_copies"]
            rows.append(
                (told, f"{behind} of {of}", percent(worst, 1), f"{_told(where)}: {copies} copies")
            )
        else:
            rows.append((told, f"0 of {of}", "", ""))
    heads = ("method", "worse than contiguous in", "by at most", "there")
    return "**Scattering heads can lose to doing nothing**:\n\n" + grid(heads, rows)


def _against_peers(found: Problems) -> str:
    """Where HPLB's whole placements are worse than the best of the others."""
    rows = []
    for method in ("equal", "free", "divided"):

        def best(by_method: dict[str, Report]) -> Report:
            others = [by_method[name] for name in PEERS if name in by_method]
            return min(others, key=lambda row: float(row["makespan_s"]))

        behind, of, worst, where = _behind(found, method, best)
        told = f"{_told(where)}, {best(found[where])['method']}" if behind else ""
        rows.append((method, f"{behind} of {of}", percent(worst, 2) if behind else "", told))
    heads = ("HPLB", "worse than the best of the five others in", "by at most", "there")
    return f"""\
**Where HPLB is behind** (`equal` has a rule that prtpy and greedy do not; a search ends within the
tolerance, 0.1 %):

{grid(heads, rows)}"""


def _behind(
    found: Problems, method: str, other: Callable[[dict[str, Report]], Report]
) -> tuple[int, int, float, Problem]:
    """Problems in which a method is worse than another row, of how many, the worst and where."""
    ratios = {
        key: by_method[method]["makespan_s"] / other(by_method)["makespan_s"] - 1
        for key, by_method in found.items()
        if method in by_method
    }
    where = max(ratios, key=lambda key: ratios[key])
    behind = sum(ratio > 1e-9 for ratio in ratios.values())
    return behind, len(ratios), ratios[where], where


def _told(key: Problem) -> str:
    profile, gpus, setting = key
    return f"{NAMES.get(profile, profile)}, {gpus} GPUs, {SETTINGS[setting]}"


def _rules(found: Problems) -> str:
    divided = [by_method["divided"] for by_method in found.values()]
    free = [rows["divided"]["over_mean"] for key, rows in found.items() if key[2] == FREE]
    gains = [
        1 - rows["divided"]["makespan_s"] / rows["free"]["makespan_s"]
        for key, rows in found.items()
        if key[2] != FREE
    ]
    return f"""\
**What remains of the bubble is in the rules.** Where heads may be divided, every plan is proved
within {percent(max(row["gap"] for row in divided))} of the best there is. With copies free that is
at most {max(free):.4f} of the mean load (heads are cut at whole query blocks); with copies priced,
dividing takes {percent(median(gains), 1)} (median) and at most {percent(max(gains), 1)} off the
best whole placement found.
"""


def _nothing_to_gain(found: Problems) -> str:
    flat: dict[str, list[str]] = {}
    for (profile, gpus, setting), by_method in found.items():
        if by_method["contiguous"]["over_mean"] <= NO_GAIN and setting != FREE:
            name = NAMES.get(profile, profile)
            flat.setdefault(name, []).append(f"{gpus} GPUs {SETTINGS[setting]}")
    lines = "\n".join(f"- {name}: {', '.join(where)}" for name, where in flat.items())
    return f"""\
**Where there is nothing to gain, HPLB says so**: contiguous placement is within
{percent(NO_GAIN - 1, 0)} of the mean load here, and plans carry the note "(almost) nothing to
gain".

{lines}
"""


def _slots(reports: Reports) -> str:
    """What engines run whose ranks hold equal numbers of KV slots: the least, and one more."""
    each: dict[tuple[str, int], dict[str, Report]] = {}
    for row in reports["slots"]["rows"]:
        each.setdefault((row["profile"], row["gpus"]), {})[row["method"]] = row
    rows = []
    for (profile, gpus), by_method in each.items():
        more = by_method["divided, one more"]
        pays = more["pays_from_tokens"]
        rows.append(
            [
                NAMES.get(profile, profile),
                str(gpus),
                f"{by_method['contiguous, least']['slots']} / {more['slots']}",
                *(_both(by_method[name]) for name in IN_SLOTS),
                "at none tried" if pays is None else f"{pays:,}",
            ]
        )
    heads = ("profile", "GPUs", "slots", *IN_SLOTS, "pays from, tokens")
    return f"""\
### In slots

On engines whose ranks are all alike every device has the same number of KV slots a layer, padded:
the least that hold every KV group, or one more, whose projections every device computes whatever is
in them. Makespan over the mean load with the least slots, and in brackets attention alone over its
mean, slots beyond the least charged to it in full. 131,072 tokens, tensor parallel, predicted.
`pays from` is the shortest of the contexts tried (powers of two from 1,024 to 1,048,576) at which
one slot more saves 1 % of the divided makespan.

{reports.source("slots")}
{grid(heads, rows)}
"""


def _both(row: Report) -> str:
    return f"{_over(row)} ({row['attention_over_mean']:.3f})"
