"""The same requests through vLLM, stock and by plans, and before and after a new plan.

`python -m benchmarks.serving`, `benchmarks.replan`, and what timing costs: `benchmarks.measuring`.
"""

from benchmarks.results_page.reports import Report, Reports, grid, percent

HEADS = (
    "placement",
    "budgets",
    "rounds",
    "tokens a second",
    "first token, s",
    "p90",
    "next token, ms",
    "p90",
    "attention of rank 0, s",
    "of rank 1, s",
    "busier over mean",
    "tiles of dense attention",
    "answers as stock",
    "loss over dense",
)
MOVED_HEADS = (
    "rounds",
    "of them",
    "tokens a second",
    "first token, s",
    "p90",
    "next token, ms",
    "attention of rank 0, s",
    "of rank 1, s",
    "busier over mean",
    "answers as before",
)
BUSY = 1.5
"""Load of a machine that is not this run's alone."""


def section(reports: Reports) -> str:
    report = reports["serving"]
    prompts = [request["prompt_tokens"] for request in report["requests"]]
    made = [request["output_tokens"] for request in report["requests"]]
    loss = report["loss"]
    return f"""\
## Requests served

vLLM {report["vllm"]} answers over HTTP, SmolLM2-135M (9 query and 3 KV heads) in float32 on two
cores: as it is, on two threads of one process, since its tensor parallelism refuses these heads on
two ranks; and by checkpoints of `hplb apply` on two ranks of a core each. Requests have the shape
of Azure's published trace of coding (AzurePublicDataset, 2023; Splitwise, ISCA 2024), from a
generator: {len(prompts)} a round, prompts of {min(prompts):,} to {max(prompts):,} tokens,
{min(made)} to {max(made)} made from each, Poisson arrivals stretched to
{report["requests"][-1]["at_s"]:.0f} s. Every row gets the same ones in turn, another text in each
round. Tokens a second are those of prompts and answers, from the first request to the last token;
the medians of rounds, with the least and the most, and p90 of all requests. Attention is the time
of the thread that computes it, of all layers in a round. Budgets of the plan are
a mean of {percent(report["share"], 0)} of {report["planned_tokens"]:,} tokens by least error. Loss
is that of the budgets in transformers, in nats a token of the ends of {loss["prompts"]} of the
prompts ({loss["dense_nats"]:.3f} dense). Answers as stock are requests to which every greedy token
is stock vLLM's.

{_shared(report["load_before_and_after"])}

{reports.source("serving")}
{grid(HEADS, [_row(row, loss) for row in report["rows"]])}

{_moved(reports)}

{_measuring(reports)}"""


def _moved(reports: Reports) -> str:
    """The same trace before, while and after the engine moves to another layout."""
    report = reports["replan"]
    moved, paid = report["moved"], report["moved"]["paid_rounds"]
    told = (
        f"it is paid after {paid:.1f} rounds of the trace"
        if paid is not None
        else "the rounds after it are no faster, and it is never paid"
    )
    gain = 100 * (moved["after_tokens_per_s"] / moved["before_tokens_per_s"] - 1)
    return f"""\
**A new plan amid requests**: the two ranks begin with KV groups in file order, then their service
wants the placed plan of the same budgets. {moved["live_s"]:.1f} s after it is wanted both serve it:
its weights are written beside the requests, and steps wait {moved["stall_s"]:.2f} s while the
engine is held, its caches are emptied and {moved["loaded_bytes"] / 1e6:,.0f} MB are loaded in
place. Tokens a second change by {gain:+.1f} %; the rounds from when it is wanted until it is served
take {moved["cost_s"]:.1f} s more than as many after them, of which each gains
{moved["gain_s"]:.1f} s: {told}. Over the move and the rounds after it together they are
{moved["net_tokens_per_s"]:.0f} a second, {moved["before_tokens_per_s"]:.0f} before. What is asked
after the move was asked before it.

{_shared(report["load_before_and_after"])}

{reports.source("replan")}
{grid(MOVED_HEADS, [_moved_row(row) for row in report["rows"]])}"""


def _measuring(reports: Reports) -> str:
    """What timing batches costs the engine whose batches are timed."""
    report = reports["measuring"]
    more = report["more_percent"]
    return f"""\
**What measuring costs an engine that runs**: {report["requests"]} requests of
{report["prompt_tokens"]} tokens and {report["made_tokens"]} made from each, in one process on one
core; the processor time of the whole process, the thread that reports with it, with every batch
timed over none, in turn. {more["median"]:+.1f} % ({more["least"]:+.1f} to {more["most"]:+.1f}, of
{len(report["rounds"])} rounds): of one batch in {report["every"]}, as it is unless said,
{more["median"] / report["every"]:+.2f} %. The aim, below 1 %, is
{"met" if max(more.values()) / report["every"] < 1 else "**not met**"}.

{reports.source("measuring")}"""


def _by_clock(row: Report) -> tuple[str, ...]:
    return (
        str(row["rounds"]),
        _spread(row["tokens_per_s"], 1, ".0f"),
        _spread(row["first_token_s"], 1, ".1f"),
        f"{row['first_token_p90_s']:.1f}",
        _spread(row["next_token_s"], 1e3, ".0f"),
    )


def _moved_row(row: Report) -> tuple[str, ...]:
    return (
        row["row"],
        *_by_clock(row),
        *(_spread(rank, 1, ".1f") for rank in row["ranks_s"]),
        f"{row['over_mean']['median']:.2f}",
        percent(row["stock_answers"], 0) if row["row"] == "after" else "",
    )


def _shared(load: list[float]) -> str:
    """What the clock is worth where others wanted the cores, too."""
    before, after = load
    found = f"The machine's load was {before:.1f} before the run, {after:.1f} at its end, with it."
    if before < BUSY:
        return found
    return f"""\
**The cores were not these processes' own**. {found} Seconds by the clock, and tokens a second with
them, are of that machine and compare no rows; attention's seconds, tiles, answers and losses do not
depend on it."""


def _row(row: Report, loss: Report) -> tuple[str, ...]:
    dense = row["budgets"] == "dense"
    tiles = row["tiles_of_dense"]
    return (
        row["row"],
        row["budgets"],
        *_by_clock(row),
        f"{1e3 * row['next_token_p90_s']:.0f}",
        *([_spread(rank, 1, ".1f") for rank in row["ranks_s"]] or ["", ""]),
        "" if row["over_mean"] is None else f"{row['over_mean']['median']:.2f}",
        "" if tiles is None else percent(tiles, 1),
        percent(row["stock_answers"], 0),
        "none" if dense else f"{loss['over_dense_nats']['median']:+.4f}",
    )


def _spread(found: Report, scale: float, form: str) -> str:
    names = ("median", "least", "most")
    middle, least, most = (format(scale * found[name], form) for name in names)
    return middle if least == most else f"{middle} ({least} to {most})"
