"""How good predicted seconds are: `benchmarks/cost_model.py`, `benchmarks/cost_model_cpu.py`."""

from benchmarks.results_page.reports import Report, Reports, grid

MODELS = {
    "roofline": "roofline",
    "plain": "a + b FLOPs + c bytes",
    "no kv_lists": "refit, no list term",
    "refit": "HPLB's refit (median, p90)",
}
FEATURES = {
    "tiles alone": "tiles alone",
    "before": "sampled rows as tiles, heads told apart instead of tiles",
    "every feature": "every feature",
    "declared": "those that the CPU back end declares",
}
FIGURES = ("mean", "median", "p90")
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

{_cpu(reports)}"""


def _cpu(reports: Reports) -> str:
    report = reports["cost_model_cpu"]
    rows = [
        (FEATURES[row["model"]], *(f"{row[f'{name}_error_percent']:.1f} %" for name in FIGURES))
        for row in report["held_out"]
    ]
    rates = report["fit_of_all_rows"]["seconds_per"]
    tile_us = 1e6 * 4 * 64 * 64 * 64
    blocks = report["tokens"] // 64
    scored = 1e3 * rates["sampled_flops"] * 2 * 2 * 64 * 64 * blocks * (blocks + 1) / 2
    return f"""\
Of our CPU back end: seconds of devices' shares of a layer of {report["tokens"]:,} tokens with
unlike budgets and keys chosen by two sampled rows of a query block, fitted on one layer's shares
and judged on another's ({report["held_out"][0]["judged_rows"]} in all; the middle half of a share's
rounds lies within {report["spread_percent"]:.1f} % of its median).

{reports.source("cost_model_cpu")}
{grid(("fitted on", *FIGURES), rows)}
A dense tile of 64 x 64 pairs and head_dim 64 costs {tile_us * rates["dense_tile_flops"]:.1f} us, a
gathered one {tile_us * rates["gathered_tile_flops"]:.1f} us, and choosing {scored:.1f} ms a head.
"""


def _error(row: Report, best: bool) -> str:
    mean = f"{row['mean_error_percent']:.1f} %"
    mean = f"**{mean}**" if best else mean
    if row["model"] != "refit":
        return mean
    return f"{mean} ({row['median_error_percent']:.1f} %, {row['p90_error_percent']:.1f} %)"
