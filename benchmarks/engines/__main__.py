"""Plans on a stock engine: `python -m benchmarks.engines`, two processes on two cores.

    python -m benchmarks.engines [--contexts 1024,2048,4096,8192] [--seconds 720] [--rounds 3]
        [--json [FILE]]

SmolLM2-135M (9 query and 3 KV heads: what stock tensor parallelism refuses on 2 ranks) prefills
held-out text under transformers' own tensor parallelism, by checkpoints that `hplb apply` writes,
and in one row by the model's own, of which each rank loads the heads that it computes.
Attention is what `hplb run` reports: seconds of every layer and rank that it had its core, summed
over layers of the slower rank; the same kernel in every row. Dense budgets are the whole context,
the others a mean of 3/16 of it: uniform, or by least error from the shipped profile. Plans are made
with rates fitted to single layers timed beforehand. A round is held against what they come to by
its own rates, fitted to single layers of random tensors, and to what is around attention with its
all-reduces, that both ranks time in step between its rows: a machine that drifts does so for both,
and how far it drifted since the plans were made is told apart. Rows take turns round by round, each
round on another window of the standard library's docstrings, whose loss is that of the run itself.
The longest context comes first; a context begins no further round once its part of --seconds is
spent.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import asdict
from json import dumps, loads
from pathlib import Path

import torch
import transformers
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from benchmarks import report
from benchmarks.engines.calibration import Calibration, Timed, fitted
from benchmarks.engines.plans import DIVIDED, RANKS, ROWS, SHARE, plans, predicted, probes
from benchmarks.engines.rank import LISTED_TOKENS, Job, Prefill, lists_of
from benchmarks.engines.summary import Found, aims, equal_lists, rounds, summarise
from executor.engines.transformers.launch import as_ranks
from executor.evaluation.loaded import load
from executor.evaluation.texts import windows
from executor.inference.budget_policy import BudgetPolicy
from executor.weights.apply import apply
from executor.weights.execution_map import ExecutionMap
from executor.weights.slots import slots_of
from profiles.catalogue import catalogue_profile
from profiles.errors import HplbError
from profiles.measuring.loading import folder_of
from profiles.time_left import TimeLeft, forward_work
from solver.plans import Plan

MODEL = "smollm2-135m"
CONTEXTS = (1024, 2048, 4096, 8192)
LEAST_TOKENS = 1024
"""In shorter ones the floor of budgets by least error is more than the mean."""


def lengths(text: str) -> list[int]:
    """Numbers of tokens between commas."""
    try:
        found = [int(each) for each in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < LEAST_TOKENS:
        raise argparse.ArgumentTypeError(
            f"{text!r}: must be numbers of tokens, {LEAST_TOKENS} or more, between commas"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contexts", type=lengths, default=CONTEXTS, help="tokens, by commas")
    parser.add_argument("--seconds", type=float, default=720, help="about so long in all")
    parser.add_argument("--rounds", type=int, default=3, help="at most, of every context")
    parser.add_argument("--plan-seconds", type=float, default=3, help="of every plan")
    asked = report.arguments(parser)
    contexts = sorted(set(asked.contexts), reverse=True)
    busy, began = os.getloadavg()[0], time.time()
    width = catalogue_profile(MODEL).architecture.hidden_size
    work = {tokens: forward_work(tokens, width) for tokens in contexts}
    left = TimeLeft(sum(work.values()))
    found: list[Found] = []
    by_context: list[Found] = []
    for number, tokens in enumerate(contexts):
        now = time.time()
        share = work[tokens] / sum(work[each] for each in contexts[number:])
        until = now + share * (began + asked.seconds - now)
        say(left.after(f"{tokens:,} tokens, until {until - now:.0f} s from now"))
        rows, told = measure(tokens, asked.rounds, asked.plan_seconds, until)
        by_context.append({"context_tokens": tokens, **told})
        found = rows + found
        left.done(work[tokens], time.time() - now)
    out = Console(file=report.table_to(asked.json), width=150)
    out.print(table(found))
    for each in by_context:
        lists = each["equal_lists"]
        said = "no list leaves anything out"
        if lists["lists"]:
            said = f"{lists['equal']:.2%} of {lists['lists']:,} lists are those of one process"
        divided = f"the first {each['listed_tokens']:,} divided"
        out.print(f"{each['context_tokens']:,} tokens, {divided}: {said}")
    met = aims(found)
    for what, aim in met.items():
        yes = "yes" if aim["met"] else "no"
        out.print(f"{what}: {aim['worst']:.3f}, aim {aim['limit']:g}: {yes}")
    report.deliver(
        asked.json,
        note="transformers' tensor parallelism over gloo, two ranks of one thread, fp32",
        torch=torch.__version__,
        transformers=transformers.__version__,
        model=MODEL,
        ranks=RANKS,
        share=SHARE,
        load_before_and_after=[busy, os.getloadavg()[0]],
        seconds=time.time() - began,
        summary=met,
        contexts=by_context,
        rows=found,
    )


def measure(
    tokens: int, most_rounds: int, limit_s: float, until: float
) -> tuple[list[Found], Found]:
    """A context's rows; the rates that they were planned with, those of its rounds, and how many
    lists are equal."""
    folder, profile = folder_of(MODEL), catalogue_profile(MODEL)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    read = windows(None, tokenizer, tokens, most_rounds)
    say("timing single layers")
    torch.set_num_threads(1)
    timed_plans = probes(profile, tokens, limit_s)
    before = fitted(Calibration(timed_plans, 1, range(RANKS)).time(0, 0), tokens)
    made = {}
    for row, plan in plans(profile, tokens, before.rates, limit_s):
        say(f"planned: {row.name}, {1000 * plan.makespan_s:.0f} ms in all")
        made[row.name] = plan
    with tempfile.TemporaryDirectory(prefix="hplb-engines-") as name:
        scratch = Path(name)
        rows = written(folder, made, scratch)
        files = [str(scratch / f"probe-{number}.json") for number in range(len(timed_plans))]
        for file, probe in zip(files, timed_plans, strict=True):
            probe.save(file)
        job = Job(rows, files, [list(window) for window in read], until, DIVIDED)
        (scratch / "job.json").write_text(dumps(asdict(job)))
        module = "benchmarks.engines.rank"
        as_ranks(module, RANKS, (str(scratch / "job.json"), name), f"{tokens} tokens")
        ranks = [loads((scratch / f"{rank}.json").read_text()) for rank in range(RANKS)]
    say("choosing lists in one process")
    alone = lists_of(load(MODEL).model, BudgetPolicy.of_plan(made[DIVIDED]), job.windows[0])
    chosen = [{tuple(place): crc for *place, crc in rank["lists"]} for rank in ranks]
    timed = [Timed(**each) for rank in ranks for each in rank["timed"]]
    by_round = [
        fitted([each for each in timed if each.round == number], tokens)
        for number in range(1 + max(each.round for each in timed))
    ]
    planned = {name: predicted(plan, before.rates, before) for name, plan in made.items()}
    foretold = {
        name: [predicted(plan, before.rates, own) for own in by_round]
        for name, plan in made.items()
    }
    measured = rounds([[Prefill(**each) for each in rank["prefills"]] for rank in ranks])
    told = {
        "listed_tokens": min(tokens, LISTED_TOKENS),
        "equal_lists": equal_lists(chosen, alone),
        "seconds_per_unit": [own.rates.rounded.seconds_per for own in (before, *by_round)],
        "rates_error": [own.error for own in (before, *by_round)],
        "wall_per_s": [own.wall_per_s for own in (before, *by_round)],
    }
    return summarise(tokens, ROWS, planned, foretold, measured), told


def written(folder: Path, made: dict[str, Plan], scratch: Path) -> dict[str, tuple[str, str]]:
    """Every row's weights and map; rows of one layout share their weights. Without padding the
    model's own weights, and the plan."""
    found: dict[str, tuple[str, str]] = {}
    weights: dict[str, ExecutionMap] = {}
    for number, row in enumerate(ROWS):
        plan, out = made[row.name], scratch / str(number)
        if not row.padded:
            plan.save(out)
            found[row.name] = str(folder), str(out)
            continue
        layout = slots_of(plan)
        same = next((at for at, was in weights.items() if was.layout == layout), None)
        if same is None:
            say(f"writing {row.name}")
            weights[str(out)] = apply(folder, plan, out, False, lambda *_: None).map
        else:
            out.mkdir()
            ExecutionMap.of(plan, layout, original=weights[same].original).save(out)
        found[row.name] = same or str(out), str(out)
    return found


def table(found: list[Found]) -> Table:
    """Medians over rounds; loss over dense, the prefill predicted with the other rows' rest too."""
    shown = Table(title="Attention and the whole prefill, s")
    heads = ("tokens", "placement", "rounds", "at the barrier", "rank 0", "rank 1", "bubble")
    for head in (
        *heads,
        "gain",
        "planned",
        "predicted",
        "prefill",
        "by its rest",
        "by plan",
        "loss",
    ):
        shown.add_column(head, justify="left" if head == "placement" else "right")
    for row in found:
        shown.add_row(
            f"{row['context_tokens']:,}",
            row["row"],
            str(row["rounds"]),
            f"{row['attention_s']['median']:.2f}",
            *(f"{rank['median']:.2f}" for rank in row["ranks_s"]),
            f"{row['bubble']['median']:.1%}",
            f"{row['gain']['median']:.2f}x",
            f"{row['planned_s']:.2f}",
            f"{row['predicted_s']['attention']:.2f}",
            f"{row['wall_s']['median']:.2f}",
            f"{row['predicted_s']['rest']:.2f}",
            f"{row['predicted_s']['step']:.2f}",
            f"{row['over_dense_nats']['median']:+.3f}",
        )
    return shown


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except HplbError as error:
        sys.exit(str(error))
