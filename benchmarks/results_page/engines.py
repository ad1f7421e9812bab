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
    "as planned, s",
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
by least error. Plans were made with rates fitted to single layers timed beforehand; predicted is
what they come to by the rates of each round, which both ranks timed in step between its rows:
attention of random tensors, and the layer around it with its all-reduces, in which ranks wait for
each other. Between the two columns lies what the machine drifted. Both are with the waits at the
barrier to expect of what the rates are wrong by for single layers. The prefill is predicted as the
plan's attention with what the round's other rows took beside theirs, and as the plan's whole step.
Attention is without what other processes take of a core, the prefill with what they took of it in
the same layers. Loss is of the measured runs themselves, in
nats a token of held-out docstrings.

{reports.source("engines")}
{grid(HEADS, [_row(row) for row in report["rows"]])}
{_aims(report["summary"])}

{_lists(report["contexts"])}

{_batches(reports)}
"""


def _batches(reports: Reports) -> str:
    report = reports["batch_steps"]
    rows = [
        (
            row["batch"],
            *(f"{1e3 * row[key]:.2f} ms" for key in ("one_s", "many_s")),
            f"{row['ratio']:.2f}x",
        )
        for row in report["rows"]
    ]
    heads = ("batch", "1 request", f"{report['requests']} requests", "over one")
    timed = report["sampled"]
    serving, reporting = (f"{1e3 * timed[key]:.2f} ms" for key in ("serving_s", "reporting_s"))
    each = f"{1e3 * (timed['serving_s'] + timed['reporting_s']) / timed['every']:.3f} ms"
    return f"""\
What a batch of vLLM's costs before it is computed: the steps of all layers over a paged cache, for
a rank of SmolLM2-135M's shape that divides a KV group of every layer. Requests that decode; one
that brings a chunk of {report["chunk_tokens"]:,} tokens, alone and beside
{report["requests"] - 1} that decode; some that bring {report["small_chunk_tokens"]} tokens each, so
that {report["requests"]} have as many times the rows. CPU seconds of a thread, medians of rounds;
the aim is {report["aim"]:g} times, {_aimed(report)}. Timing a sampled batch, one chunk and
{report["requests"] - 1} decodes, takes {serving} of the serving thread, in looks at the clock, and
{reporting} of the reporting one, in counting work: one in {timed["every"]} unless said, {each} a
batch.

{reports.source("batch_steps")}
{grid(heads, rows)}"""


def _aimed(report: Report) -> str:
    met = [row["batch"] for row in report["rows"] if row["ratio"] <= report["aim"]]
    missed = [row["batch"] for row in report["rows"] if row["ratio"] > report["aim"]]
    said = [
        f"{how} by {', '.join(which)}"
        for how, which in (("met", met), ("**not met**", missed))
        if which
    ]
    return ", ".join(said)


def _row(row: Report) -> tuple[str, ...]:
    rounds = f" ({row['rounds']} rounds)" if row["rounds"] > 1 else " (one round)"
    return (
        f"{row['context_tokens']:,}",
        row["row"] + rounds,
        _spread(row["attention_s"]),
        *(f"{rank['median']:.2f}" for rank in row["ranks_s"]),
        percent(row["bubble"]["median"], 1),
        f"{row['gain']['median']:.2f}x",
        f"{row['planned_s']:.2f}",
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
        if each["equal_lists"]["lists"]
    ]
    return f"""\
Sums in another order round differently, so that ranks and one process may choose other keys where
scores are close. Of the lists that the divided plan's heads chose in the first
{max(each["listed_tokens"] for each in contexts):,} tokens at most, equal in both: {", ".join(said)}
tokens."""
