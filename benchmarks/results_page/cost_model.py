"""How good predicted seconds are: `benchmarks/cost_model.py`."""

from benchmarks.results_page.reports import Report, Reports, grid

MODELS = {
    "roofline": "roofline",
    "plain": "a + b FLOPs + c bytes",
    "no kv_lists": "refit, no list term",
    "refit": "HPLB's refit (median, p90)",
}
SPLITS = {"interior": "random half", "extrapolated": "longest fifth"}


def section(reports: Reports) -> str:
    report = reports["cost_model_h200"]
    found: dict[tuple[str, str], dict[str, Report]] = {}
    for row in report["held_out"]:
        found.setdefault((row["phase"], row["split"]), {})[row["model"]] = row
    rows = []
    for (phase, split), models in found.items():
        refit = models["refit"]
        where = f"{phase}, {SPLITS[split]} (from {refit['judged_from_tokens']:,} tokens)"
        best = min(models, key=lambda name: float(models[name]["mean_error_percent"]))
        cells = [_error(models[name], name == best) for name in MODELS]
        rows.append((where, f"{refit['judged_rows']:,}", *cells))
    behind = [
        f"{phase}, {SPLITS[split]}"
        for (phase, split), models in found.items()
        if models["refit"]["mean_error_percent"] > models["plain"]["mean_error_percent"]
    ]
    longest = max(
        int(row["fitted_to_tokens"]) for row in report["held_out"] if row["phase"] == "prefill"
    )
    return f"""\
## The cost model

Mean error of predicted seconds on rows that the model was not fitted on; the best in bold. The rows
are public measurements of dense attention, not of our kernels.

{reports.source("cost_model_h200")}
{grid(("phase, held-out rows", "rows", *MODELS.values()), rows)}
The refit is no better than the plain model for: {"; ".join(behind) or "none"}. What is left in
prefill is wave quantisation on the multiprocessors, which is not linear in a placement. Beyond
{longest:,} tokens, and of chunked prefill, nothing was measured; plans carry the warning
`extrapolated`. The tables hold nothing about block selection, projections or links: those rates are
the data sheet's.
"""


def _error(row: Report, best: bool) -> str:
    mean = f"{row['mean_error_percent']:.1f} %"
    mean = f"**{mean}**" if best else mean
    if row["model"] != "refit":
        return mean
    return f"{mean} ({row['median_error_percent']:.1f} %, {row['p90_error_percent']:.1f} %)"
