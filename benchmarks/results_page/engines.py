"""Plans on a stock engine, by real processes: `python -m benchmarks.engines`."""

from benchmarks.results_page.reports import Report, Reports, grid, percent

HEADS = (
    "tokens",
    "placement",
    "attention at the barrier, s",
    "rank 0, s",
    "rank 1, s",
    "bubble",
    "over padded dense",
    "predicted, s",
    "prefill, s",
    "with the others' rest, s",
    "plan's step, s",
    "loss over dense",
)


def section(reports: Reports) -> str:
    report = reports["engines"]
    return f"""\
## On a stock engine

SmolLM2-135M (9 query and 3 KV heads) under transformers' own tensor parallelism, which refuses
these heads on {report["ranks"]} ranks: checkpoints written by `hplb apply`, two KV slots a rank, a
process and a core each. Attention is the seconds that a rank had its core for, of every layer the
slower rank's; the same kernel in every row. Medians of rounds that took turns, with the least and
the most. Budgets are the whole context or a mean of {percent(report["share"], 0)} of it, uniform or
by least error. Rates were fitted to single layers timed alone before anything was planned;
the prefill is predicted as the plan's attention with what the other rows took beside theirs, and as
the plan's whole step, of which projections and attention alone were timed. Loss is of the measured
runs themselves, in nats a token of held-out docstrings.

{reports.source("engines")}
{grid(HEADS, [_row(row) for row in report["rows"]])}
{_aims(report["summary"])}

{_lists(report["contexts"])}
"""


def _row(row: Report) -> tuple[str, ...]:
    rounds = f" ({row['rounds']} rounds)" if row["rounds"] > 1 else " (one round)"
    return (
        f"{row['context_tokens']:,}",
        row["row"] + rounds,
        _spread(row["attention_s"]),
        *(f"{rank['median']:.2f}" for rank in row["ranks_s"]),
        percent(row["bubble"]["median"], 1),
        f"{row['gain']['median']:.2f}x",
        _predicted(row, "attention"),
        _spread(row["wall_s"]),
        _predicted(row, "rest"),
        _predicted(row, "step"),
        f"{row['over_dense_nats']['median']:+.3f}",
    )


def _spread(found: Report) -> str:
    if found["least"] == found["most"]:
        return f"{found['median']:.2f}"
    return f"{found['median']:.2f} ({found['least']:.2f} to {found['most']:.2f})"


def _predicted(row: Report, what: str) -> str:
    return f"{row['predicted_s'][what]:.2f} ({row['error_percent'][what]:+.1f} %)"


def _aims(summary: Report) -> str:
    if not summary:
        return "The aims are for contexts from 4,096 tokens on, which this run did not have."
    said = [
        f"{what} {aim['worst']:.2f}, aim {aim['limit']:g}: {'met' if aim['met'] else '**not met**'}"
        for what, aim in summary.items()
    ]
    return f"The aims, from 4,096 tokens on, by the worst row: {'; '.join(said)}."


def _lists(contexts: list[Report]) -> str:
    said = [
        f"{percent(each['equal_lists']['equal'])} of {each['equal_lists']['lists']:,} "
        f"at {each['context_tokens']:,}"
        for each in contexts
    ]
    return f"""\
Sums in another order round differently, so that ranks and one process may choose other keys where
scores are close. Of the lists that the divided plan's heads chose in the first
{max(each["listed_tokens"] for each in contexts):,} tokens at most, equal in both: {", ".join(said)}
tokens."""
