"""The kernels: on a CPU, in simulation, and as the compiler leaves them. No GPU."""

from statistics import median

from benchmarks.results_page.reports import Report, Reports, grid, percent, share, span

LEAST_BLOCK = 64
"""Smaller blocks have no aim on a CPU."""
ORDERS = {
    "grid": "head after head",
    "reversed": "reversed rows",
    "strided": "strided persistent",
    "longest": "longest first (ours)",
    "no order": "no order beats",
}
CHOSEN_BLOCKS = 8
SELECTORS = {
    "oracle": "best blocks",
    "vertical-slash": "vertical-slash in blocks",
    "pooled": "block means",
    "sink + local": "sink + local",
    "token lines": "MInference's token lines, as many pairs",
}


def section(reports: Reports) -> str:
    return f"""\
## The kernels

What GPUs measured is in [gpu.md](gpu.md); nothing on this page ran on one. How the kernels work:
[kernels.md](kernels.md).

{_cpu(reports)}
{_selected(reports)}
{_decode(reports)}
{_flex(reports)}
{_schedule(reports)}
{_selection(reports)}
{_compiled(reports)}
"""


def _cpu(reports: Reports) -> str:
    report = reports["cpu_attention"]
    tokens = max(row["tokens"] for row in report["rows"])
    rows = []
    budgets = sorted({row["budget"] for row in report["rows"]}, reverse=True)
    for budget in budgets:
        alike = [
            row
            for row in report["rows"]
            if row["budget"] == budget and row["block_tokens"] >= LEAST_BLOCK
        ]
        cells = [
            span([row["ratio"]["median"] for row in alike if row["threads"] == threads])
            for threads in (1, 2)
        ]
        rows.append((_budget(budget), *cells))
    small = [row for row in report["rows"] if row["block_tokens"] < LEAST_BLOCK]
    for size in sorted({row["block_tokens"] for row in small}, reverse=True):
        cells = [
            span([r["ratio"]["median"] for r in small if (r["block_tokens"], r["threads"]) == key])
            for key in ((size, 1), (size, 2))
        ]
        rows.append((f"{percent(small[0]['budget'], 0)}, blocks of {size}", *cells))
    heads = ("budget", "one thread (an executor's CPU device)", "two threads")
    return f"""\
### The torch back end on a CPU

Seconds per computed tile over PyTorch's dense attention at {tokens:,} tokens, medians of
{report["rounds"]} interleaved rounds, lowest and highest over fp32 and bf16, head_dim 64 and 128,
blocks of 64 and 128; torch {report["torch"]}. The aim, 1.5 with blocks of at least {LEAST_BLOCK},
is met in {share(report["summary"])} cases.

{reports.source("cpu_attention")}
{grid(heads, rows)}"""


def _selected(reports: Reports) -> str:
    report = reports["cpu_selected"]
    rows = [
        (
            f"{row['tokens']:,}",
            str(row["head_dim"]),
            str(row["piece_tokens"]),
            percent(row["density"], 0) + ("" if row["aim"] else ", gathered"),
            f"{row['attention']['median']:.2f}",
            *(
                cell
                for found in row["by_sampled_rows"].values()
                for cell in (f"{found['selection']['median']:.2f}", _spread(found["whole"]))
            ),
            f"{row['aim']:.2f}" if row["aim"] else "",
        )
        for row in report["rows"]
    ]
    few, many = report["summary"]
    met = " and ".join(
        f"{found['met']} of {found['of']} aims by {sampled} rows (selection's, 0.06: "
        f"{found['selection_met']})"
        for sampled, found in report["summary"].items()
    )
    heads = ("tokens", "head_dim", "pieces of", "tiles", "attention")
    heads += (f"by {few} rows", "both", f"by {many} rows", "both", "aim")
    before, after = report["load_before_and_after"]
    return f"""\
### Selection and attention over dense attention on a CPU

Seconds of one thread over PyTorch's dense attention in the same round, medians of
{report["rounds"]} rounds; both together with the least and the most. Blocks of 64, fp32, selection
by {few} sampled rows a block and by {many}, as it is unless told: their products alone are 6 % of
dense attention's. A head of nearly all tiles has every one and chooses none; "gathered" are such
lists gathered all the same. Met are {met}. The machine's load was {before:.1f} before and
{after:.1f} after, the benchmark itself included.

{reports.source("cpu_selected")}
{grid(heads, rows)}"""


def _decode(reports: Reports) -> str:
    report = reports["decode_cpu"]
    rows = [
        (
            row["way"],
            _milliseconds(row["attention_s"]),
            _spread(row["attention_over_static"]),
            _milliseconds(row["token_s"]),
            f"{row['tokens_per_cpu_s']:.1f}",
        )
        for row in report["rows"]
    ]
    summary = report["summary"]
    heads = ("", "attention, ms a token", "over static", "token, ms", "tokens a CPU second")
    return f"""\
### Decoding through transformers on a CPU

A token after {report["context_tokens"]:,} in CPU time of one thread, medians of {report["rounds"]}
interleaved rounds with the least and the most: attention with the caches' updates, and the whole
forward pass. Unequal budgets are {report["unequal"]} of the context in the three KV groups. The
aims with `GrowingCache`: attention at most {summary["limit"]} of SDPA's with a static cache,
{_met(summary["attention_met"])}; no fewer tokens a CPU second, {_met(summary["tokens_met"])}.

{reports.source("decode_cpu")}
{grid(heads, rows)}"""


def _met(met: bool) -> str:
    return "met" if met else "**not met**"


def _milliseconds(found: Report) -> str:
    return _spread({name: 1e3 * seconds for name, seconds in found.items()}, ".1f")


def _spread(found: Report, form: str = ".2f") -> str:
    median, least, most = (format(found[name], form) for name in ("median", "least", "most"))
    return f"{median} ({least} to {most})"


def _flex(reports: Reports) -> str:
    beside = [row for row in reports["cpu_attention"]["rows"] if row.get("flex_ratio")]
    rows = []
    for budget in sorted({row["budget"] for row in beside}, reverse=True):
        cells = [
            span(
                [
                    row["flex_ratio"]["median"]
                    for row in beside
                    if (row["budget"], row["threads"]) == (budget, threads)
                ]
            )
            for threads in (1, 2)
        ]
        rows.append((_budget(budget), *cells))
    report = reports["cpu_flex"]
    compiled = [
        f"{sum(row['compiled'] for row in alike)} compilations for {len(alike)} steps "
        f"({'all shapes' if dynamic else 'every shape'})"
        for dynamic in (False, True)
        for alike in [[row for row in report["rows"] if row["dynamic"] == dynamic]]
    ]
    first = [row["first_call_s"] for row in report["rows"] if row["compiled"]]
    plan = max(row["plan_s"] for row in report["rows"])
    return f"""\
### Beside FlexAttention on a CPU

Our seconds per tile over compiled FlexAttention's on the same lists (fp32, head_dim 128); above 1
it is faster. It is no back end: on a CPU it returns no log-sum-exp, by which parts are merged and
recovery is measured. As lists and lengths change from step to step it needs
{" and ".join(compiled)}, of {span(first, ".1f")} s each, and at most {1e3 * plan:.1f} ms of
planning a step.

{reports.source("cpu_attention", "cpu_flex")}
{grid(("budget", "one thread", "two threads"), rows)}"""


def _budget(budget: float) -> str:
    return percent(budget, 0) if budget < 1 else "all keys"


def _schedule(reports: Reports) -> str:
    report = reports["schedule"]
    programs = min(row["programs"] for row in report["rows"])
    rows = []
    for context in sorted({row["context_tokens"] for row in report["rows"]}):
        alike = [
            row["over"]
            for row in report["rows"]
            if (row["phase"], row["plan"]) == ("prefill", "divided")
            and (row["programs"], row["context_tokens"]) == (programs, context)
        ]
        rows.append((f"{context:,}", *(_worst(alike, order) for order in ORDERS)))
    aim = report["aim"]
    return f"""\
### Tiles over the multiprocessors, simulated

{programs} multiprocessors, one program each; a list costs 2 blocks plus its own. Real profiles, our
divided plans on 8 GPUs, every device's share of some layers: makespan over max(total / programs,
longest list), the worst share, in brackets the median of the profiles' medians.

{reports.source("schedule")}
{grid(("tokens", *ORDERS.values()), rows)}
The aim, longest first within 3 % of that bound, is met in {share(aim)} simulated shares (all plans,
one and two programs a multiprocessor), {aim["worst"]:.3f} at worst; of the others no order of whole
lists could bring {aim["missed_by_every_order"]} within it: an eighth of a layer of a short prompt
is too few lists.
"""


def _worst(alike: list[Report], order: str) -> str:
    worst = max(over[order]["worst"] for over in alike)
    return f"{worst:.3f} ({median(over[order]['median'] for over in alike):.3f})"


def _selection(reports: Reports) -> str:
    report = reports["selection"]
    rows = [
        (
            row["head"],
            *(f"{row[name]:.3f}" for name in SELECTORS),
            f"{row['touched_over_tiles']:.1f}x",
        )
        for row in report["summary"]
        if row["budget_blocks"] == CHOSEN_BLOCKS
    ]
    tokens = max(row["tokens"] for row in report["rows"])
    heads = ("head", *SELECTORS.values(), "tiles these touch")
    return f"""\
### Selection on synthetic inputs

Attention recovered by {CHOSEN_BLOCKS} blocks of 64 at {tokens:,} tokens. Token lines recover more
per pair, but on tensor cores they pay for every tile they touch. Two settings of vertical-slash
were chosen on shorter inputs of the same generator, which flatters it.

{reports.source("selection")}
{grid(heads, rows)}"""


def _compiled(reports: Reports) -> str:
    report = reports["rehearsal"]
    found = report["compiled"]["configurations"]
    rows = [
        (
            name,
            str(row["registers"]),
            str(row["spilled_bytes"]),
            f"{row['shared_bytes'] / 1024:.0f}",
            str(row["programs_per_sm"]),
        )
        for name, row in found.items()
    ]
    heads = ("configuration", "registers a thread", "spilled bytes", "shared KB", "programs an SM")
    versions = report["packages"]
    tests = report["tests"]
    return f"""\
### Compiled for sm_90

On a CPU, with the versions of a GPU machine: Python {report["python"]}, torch {versions["torch"]},
Triton {versions["triton"]}. {tests["tests"]} tests of the kernels ran there in Triton's
interpreter: {tests["failures"] + tests["errors"]} failed, {tests["skipped"]} skipped.

{reports.source("rehearsal")}
{grid(heads, rows)}"""
