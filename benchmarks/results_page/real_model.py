"""What budgets cost a real pretrained model: `python -m benchmarks.real_model`."""

import re
from collections.abc import Iterator
from itertools import pairwise
from math import log

import numpy as np

from benchmarks.results_page.reports import Report, Reports, grid, percent
from executor.evaluation.bootstrap import Interval, resample

POLICIES = {
    "uniform": "uniform",
    "least_error_model": "**least error**",
    "least_error": "least error, layer by layer",
    "least_gradient_error": "least error weighed by gradients, whole model",
    "mean_recovery": "mean recovery",
    "max_min": "max-min (the paper)",
    "max_min_model": "max-min, whole model",
    "shifting": "max-min shifting (the paper)",
    "streaming_llm": "StreamingLLM (sink + nearest)",
    "top_p": "top-p, scored as ours",
    "xattention": "XAttention's antidiagonal scores, top-p",
}
SHARES = ("0.2", "0.3", "0.5")
SIZES = {
    "64x64": "64 x 64",
    "64x32": "64 x 32",
    "64x16": "64 x 16",
    "32x16r4": "32 x 16, 4 rows",
    "16x16": "16 x 16",
    "16x16r2": "16 x 16, 2 rows",
}
SHOWN = {
    (2048, "64x64"): ("uniform", "max_min", "least_error_model"),
    (2048, "64x16"): ("uniform", "least_error_model"),
    (8192, "64x16"): ("uniform", "least_error_model"),
}
CONTEXT = 2048
TRIES = {
    "floor": "no head below two pieces beside its query block's own",
    "first_dense": "the first layer dense",
    "two_dense": "the first two layers dense",
    "by_query_block": "budgets by query block: a p for each head, whose mean is its budget",
}
FINE = ("64x16", "32x16r4", "16x16", "16x16r2")
FINE_ALLOWED = 0.05
"""Nats a token at the fewest pairs, aimed at with key pieces of 16."""
ALLOWED = 0.02
"""Nats a token that the default budgets may be predicted to lose."""


def section(reports: Reports) -> str:
    report = reports["real_model"]
    rows = [
        (f"{line[0]:,}", SIZES[line[1]], POLICIES[line[2]], *cells)
        for line, cells in _points(report).items()
    ]
    return f"""\
### A real model

SmolLM2-135M-Instruct (Q4_1 weights, dequantised to fp32) on held-out documents of four kinds (code,
manuals, prose, dialogue; [which](../benchmarks/real_model/documents.py)): loss over dense attention
in nats a token, over each document's last min(1,024, context / 2) tokens, with 95 % intervals; in
brackets the ratio to uniform on the same documents. Budgets compute at most the (query, key) pairs
of uniform whole blocks of 64 x 64, and were chosen on nine other documents, none of them dialogue;
the p of what goes by top-p was set on three of these, and where it computes more pairs they are
named. Keys are chosen by eight sampled rows of a query block unless others are named, an eighth of
blocks of 64 and 6 % of dense attention's products, half of blocks of 16 and 25 %; these are not
counted. StreamingLLM's and XAttention's are chosen by their own rules. No ratio is given to what
uniform budgets may not lose at all. Where fewer than 24 documents are
behind a figure, their number follows it. `--summary` computes no rows: the command without it did.

{reports.source("real_model")}
{grid(("tokens", "rows x keys", "policy", *_heads(report)), rows)}
Pairs for a loss of {ALLOWED} nats, between the points above by the logarithm of the loss:

{grid(("tokens", "rows x keys", "uniform", "least error"), list(_enough(report)))}
![Loss over dense against the pairs computed](../benchmarks/results/real_model.png)

{_together(reports)}
#### Aims, what was tried for them, and promises

{reports.source("real_model")}
{_aims(report)}
{_tries(report)}
{_promises(report)}
{_ruler(reports)}"""


def _enough(report: Report) -> Iterator[tuple[str, ...]]:
    """Of both policies, at every context and size that has them."""
    lines = {(line["context"], line["size"]) for line in report["lines"]}
    for context, size in sorted(lines, key=lambda key: _order(*key)):
        needed = [
            _pairs_for_loss(
                [
                    (line["pairs"], line["loss"])
                    for line in report["lines"]
                    if (line["context"], line["size"], line["policy"]) == (context, size, policy)
                ]
            )
            for policy in ("uniform", "least_error_model")
        ]
        if all(needed):
            yield f"{context:,}", SIZES[size], *needed


def _aims(report: Report) -> str:
    """What was aimed at with least-error budgets, at every context and size that has them."""
    found: dict[tuple[int, str], dict[str, Report]] = {}
    for line in report["lines"]:
        if line["policy"] == "least_error_model":
            found.setdefault((line["context"], line["size"]), {})[line["share"]] = line
    rows = []
    for (context, size), at in sorted(found.items(), key=lambda kept: _order(*kept[0])):
        worst = max(at.values(), key=lambda line: line["over_uniform"] - line["over_uniform_half"])
        more, half = worst["over_uniform"], worst["over_uniform_half"]
        fine = size in FINE
        rows.append(
            (
                f"{context:,}",
                SIZES[size],
                _ratio(at["0.2"], 0.7),
                _ratio(at["0.3"], 0.5),
                _judged(more <= half, f"{more:+.4f}", half),
                _lost(at["0.2"], FINE_ALLOWED) if fine else "",
                _lost(at["0.3"], at["0.3"]["half_interval"]) if fine else "",
            )
        )
    heads = (
        "tokens",
        "rows x keys",
        "0.7 of uniform's loss at 18 %",
        "0.5 at 28 %",
        "nowhere significantly above uniform's",
        f"{FINE_ALLOWED} nats at 18 %, pieces of 16",
        "no significant loss at a third, pieces of 16",
    )
    return f"""\
What was aimed at with least error, with 95 % intervals (of ratios, and of the difference from
uniform where it is least favourable). A third of the pairs is judged at 28 %, the point below it,
which is stricter.

{grid(heads, rows)}"""


def _order(context: int, size: str) -> tuple[int, int]:
    return context, list(SIZES).index(size)


def _ratio(line: Report, aim: float) -> str:
    if "of_uniform" not in line:
        return "no ratio: uniform's may be none"
    return _judged(line["of_uniform"] <= aim, f"{line['of_uniform']:.3f}", line["of_uniform_half"])


def _lost(line: Report, most: float) -> str:
    return _judged(line["loss"] <= most, f"{line['loss']:+.3f}", line["half_interval"])


def _judged(met: bool, figure: str, half: float) -> str:
    digits = len(figure.partition(".")[2])
    return f"{'met' if met else '**not met**'}: {figure} ±{half:.{digits}f}"


def _tries(report: Report) -> str:
    order = list(TRIES)
    allowed = {
        (line["size"], line["share"]): line["pairs"]
        for line in report["lines"]
        if (line["context"], line["policy"]) == (CONTEXT, "uniform")
    }
    lines = sorted(
        report["tries"],
        key=lambda line: (
            _order(CONTEXT, line["size"]),
            line["share"],
            order.index(line["policy"]),
        ),
    )
    heads = (
        "rows x keys",
        "beside",
        "pairs",
        "loss",
        "over least error alone",
        "it is",
        "documents",
    )
    return f"""\
Tried beside the objective, at {CONTEXT:,} tokens and within uniform's pairs, dense layers counted:
loss over dense attention, and over least-error budgets without it on the same documents. Lists by
query block are in blocks of 64 alone; their p is set on these very documents as dense attention
reads them, and they compute more pairs for all that: least error alone is then given at as many,
between its points by the logarithm of the loss.

{grid(heads, [_tried(line, allowed[line["size"], line["share"]]) for line in lines])}"""


def _tried(line: Report, allowed: float) -> tuple[str, ...]:
    """`allowed`: uniform's pairs."""
    more, half = line["over_least_error_model"], line["over_least_error_model_half"]
    it_is = "better" if more < -half else "worse" if more > half else "neither"
    if line["pairs"] > 1.001 * allowed:
        it_is = f"of more pairs, where least error alone loses {line['alone_at_pairs']:+.3f}"
    return (
        SIZES[line["size"]],
        TRIES[line["policy"]],
        percent(line["pairs"], 1),
        f"{line['loss']:+.3f} ±{line['half_interval']:.3f}",
        f"{more:+.4f} ±{half:.4f}",
        it_is,
        str(line["documents"]),
    )


def _promises(report: Report) -> str:
    rows = []
    for line in report["promises"]:
        promise, loss, half = line["promise"], line["loss"], line["half_interval"]
        held = "held" if loss + half <= promise["bound"] else "held by the mean alone"
        rows.append(
            (
                f"{promise['bound']}",
                f"{promise['nats']:.4f} ({promise['low']:.4f} to {promise['high']:.4f})",
                f"{loss:.4f} ({loss - half:.4f} to {loss + half:.4f})",
                held if loss <= promise["bound"] else "**not held**",
                ", ".join(
                    f"{kind} {mean:.4f}" if mean <= promise["bound"] else f"{kind} **{mean:.4f}**"
                    for kind, mean in line["kinds"].items()
                ),
                percent(line["pairs"], 1),
                str(line["documents"]),
            )
        )
    heads = ("nats allowed", "predicted", "measured", "promise", "by kind", "pairs", "documents")
    return f"""\
What `hplb plan -p smollm2-135m --context {CONTEXT} --budget-loss X` allows and predicts, and what
its budgets lose on held-out documents: nats a token with 95 % intervals, and means by kind,
**bold** where above what is allowed: a promise is of the mean, not of every kind of text.

{grid(heads, rows)}"""


def _pairs_for_loss(points: list[tuple[float, float]]) -> str:
    """The share of pairs at which the loss falls to ALLOWED; "" for no points."""
    points = sorted(points)
    if not points:
        return ""
    if points[0][1] <= ALLOWED:
        return f"below {percent(points[0][0], 1)}"
    for (fewer, worse), (more, better) in pairwise(points):
        if better <= ALLOWED:
            # What loses nothing has no logarithm: there the line is straight.
            way = (
                log(worse / ALLOWED) / log(worse / better)
                if better > 0
                else (worse - ALLOWED) / (worse - better)
            )
            return percent(fewer + way * (more - fewer), 1)
    return f"above {percent(points[-1][0], 1)}"


def _together(reports: Reports) -> str:
    report = reports["cross_head"]
    lines = [line for line in report["lines"] if line["policy"] == "least_error_model"]
    medians, least, most = ([line[name] for line in lines] for name in ("median", "least", "most"))
    return f"""\
`least_error` adds up heads' squared errors as if they were independent. On {report["documents"]} of
these documents, every layer given dense attention's input, the squared error of a layer's heads
together is {min(medians):.2f} to {max(medians):.2f} of that sum in the median layer
({min(least):.2f} to {max(most):.2f} in single ones): little is hidden.

{reports.source("cross_head")}
"""


def _answers(report: Report) -> dict[str, dict[str, list[float]]]:
    """Scores of RULER's samples by policy and task."""
    scores: dict[str, dict[str, list[float]]] = {}
    for row in report["rows"]:
        if row["task"] in report["options"]["tasks"]:
            scores.setdefault(row["method"], {}).setdefault(row["task"], []).append(row["value"])
    return scores


def _ruler(reports: Reports) -> str:
    """Scores of every policy by task, and their mean against dense's and uniform's, paired."""
    report = reports["ruler"]
    options = report["options"]
    tasks, samples, (context,) = options["tasks"], options["samples"], options["contexts"]
    scores = _answers(report)
    found = resample(
        {method: [np.array(of[task]) for task in tasks] for method, of in scores.items()},
        seed=options["seed"],
    )
    computed = {line["method"]: line["computed"] for line in report["lines"]}
    rows = [
        (
            POLICIES.get(method, method),
            percent(computed[method], 1),
            *(f"{100 * np.mean(of[task]):.1f}" for task in tasks),
            f"{100 * found[method].value:.1f}",
            *(_less(found[method].less(found[other])) for other in ("dense", "uniform")),
        )
        for method, of in scores.items()
    ]
    return f"""\
#### RULER

Three of RULER's task types that the model can do at {context:,} tokens, {samples} samples each:
answer words right, %; points over dense and over uniform with paired 95 % intervals (every type
resampled by itself).

{reports.source("ruler")}
{grid(("policy", "pairs", *tasks, "mean", "over dense", "over uniform"), rows)}"""


def _less(interval: Interval) -> str:
    if interval.low == interval.high == 0:
        return ""
    value, low, high = (100 * (x or 0.0) for x in (interval.value, interval.low, interval.high))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def readme_table(reports: Reports) -> str:
    """What the README shows: two contexts, two sizes."""
    report = reports["real_model"]
    points = _points(report)
    rows = [
        (
            f"{context:,}, {SIZES[size]}",
            POLICIES[policy],
            *(_mean(cell).partition(",")[0] for cell in points[context, size, policy]),
        )
        for (context, size), policies in SHOWN.items()
        for policy in policies
    ]
    documents = report["summary"]["documents"]
    ruler = reports["ruler"]
    computed = next(line["computed"] for line in ruler["lines"] if line["method"] == "uniform")
    told = ", ".join(
        f"{POLICIES.get(method, method)} {100 * np.mean([np.mean(x) for x in of.values()]):.0f}"
        for method, of in _answers(ruler).items()
    )
    return f"""\
## What budgets cost

Loss over dense attention, nats a token: SmolLM2-135M, {documents} held-out documents (8 at 8,192),
in brackets over uniform's. `hplb plan` takes the cheapest least-error budgets predicted to lose at
most 0.02 where a profile is calibrated. [Intervals](docs/results.md#a-real-model).

{grid(("tokens, rows x keys", "budgets", *_heads(report)), rows)}
RULER at {percent(computed, 0)} of pairs, % right: {told}.
"""


def _points(report: Report) -> dict[tuple[int, str, str], list[str]]:
    """Cells of every (context, size, policy), a cell a share."""
    found: dict[tuple[int, str, str], dict[str, str]] = {}
    allowed = {
        (line["context"], line["size"], line["share"]): line["pairs"]
        for line in report["lines"]
        if line["policy"] == "uniform"
    }
    for line in report["lines"]:
        key = line["context"], line["size"], line["policy"]
        more = line["pairs"] > 1.001 * allowed[line["context"], line["size"], line["share"]]
        found.setdefault(key, {})[line["share"]] = _cell(line, more)
    order = list(POLICIES)
    keys = sorted(found, key=lambda key: (key[0], list(SIZES).index(key[1]), order.index(key[2])))
    return {key: [found[key].get(share, "") for share in SHARES] for key in keys}


def _mean(cell: str) -> str:
    """A cell without its interval."""
    return re.sub(" ±[0-9.]+", "", cell)


def _cell(line: Report, more_pairs: bool) -> str:
    half = "" if line["half_interval"] is None else f" ±{line['half_interval']:.3f}"
    ratio = f" ({line['of_uniform']:.2f})" if "of_uniform" in line else ""
    few = "" if line["documents"] >= 24 else f", {line['documents']} documents"
    more = f", {percent(line['pairs'], 1)} of pairs" if more_pairs else ""
    return f"{line['loss']:+.3f}{half}{ratio}{few}{more}"


def _heads(report: Report) -> list[str]:
    """The shares as uniform's own at the shown context."""
    pairs = {
        line["share"]: line["pairs"]
        for line in report["lines"]
        if line["policy"] == "uniform" and line["context"] == CONTEXT
    }
    return [f"{percent(pairs[share], 1)} of pairs" for share in SHARES]
