"""What budgets cost a real model: `python -m benchmarks.real_model`, one command for all losses.

    python -m benchmarks.real_model [--seconds N] [--stages 2048,peers,...] [--json FILE]

SmolLM2-135M-Instruct (Q4_1 weights, dequantised to fp32: `hplb models get smollm2-135m`) reads
documents it was not measured on, and its loss over the last min(1024, context / 2) tokens is taken
beside that of dense attention on the same document. Budgets are chosen on nine other documents, by
profiles that are measured first. Every row is kept at once in `--rows`, and in the report: the same
command goes on where it was stopped. The stages come in the order of their value; `--summary`
computes no rows. RULER's scores (`hplb evaluate`, ruler.json) and the errors of heads together
(benchmarks/cross_head.py) are other commands', which their reports name.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from time import monotonic, perf_counter

import torch

from benchmarks.real_model.documents import Document, as_jsonl, calibration, held_out
from benchmarks.real_model.picture import draw
from benchmarks.real_model.policies import (
    BUDGETS,
    BY_BLOCK,
    DENSE,
    PROMISED,
    PROMISES,
    SELECTION,
    TRIED_ON,
    TRIES,
    Chosen,
    Size,
    by_query_block,
    chosen,
    online,
    promise,
    promised,
    share_of,
    watch,
)
from benchmarks.real_model.rows import Row, restore
from benchmarks.real_model.summary import equal_work, summarise
from benchmarks.report import deliver
from executor.errors import EvaluationError
from executor.evaluation.journal import Journal
from executor.evaluation.loaded import load
from executor.evaluation.scoring import surprise
from executor.evaluation.texts import scored_tokens
from profiles.cli.progress import shown
from profiles.fetched import cache_folder
from profiles.measuring import measure
from profiles.measuring.loading import Loaded, folder_of
from profiles.model import ModelProfile
from profiles.weights import sha256_of, weights_of

MODEL = "smollm2-135m"
RESULTS = Path(__file__).parents[1] / "results"
BLOCKS = {2048: (3, 5, 9), 4096: (6, 10, 18), 8192: (12, 20, 36)}
"""Uniform's whole blocks of 64: near 18, 30 and 50 % of dense attention's pairs."""
PIECES, SQUARE = Size(64, 16), Size(64, 64)
HALVES = Size(32, 16, rows=4)
"""Half as many rows a list, scored at the same cost."""
PROMISED_AT = 2048
DENSE_FIRST = ("dense", 1.0, DENSE)
BEST = ("uniform", "least_error_model", "max_min", "least_error")


@dataclass(frozen=True)
class Stage:
    """Policies of one size at one context, on the first `documents`."""

    name: str
    context: int
    size: Size
    policies: tuple[str, ...]
    documents: int = 24
    points: tuple[int, ...] = (0, 1, 2)


PEERS = (
    "least_error",
    "mean_recovery",
    "max_min_model",
    "shifting",
    "streaming_llm",
    "top_p",
    "xattention",
    "least_gradient_error",
)
STAGES = (
    Stage("2048", 2048, PIECES, ("uniform", "least_error_model")),
    Stage("2048", 2048, SQUARE, ("uniform", "max_min", "least_error_model")),
    Stage("peers", 2048, SQUARE, PEERS, documents=8, points=(0, 1)),
    Stage("2048", 2048, PIECES, ("max_min",)),
    Stage("sizes", 2048, Size(64, 32), ("uniform", "least_error_model"), documents=8),
    Stage("sizes", 2048, Size(16, 16), ("uniform", "least_error_model"), documents=8),
    Stage("sizes", 2048, HALVES, ("uniform", "least_error_model"), documents=24),
    Stage("sizes", 2048, Size(16, 16, rows=2), ("uniform", "least_error_model"), documents=8),
    Stage("4096", 4096, PIECES, BEST, documents=8),
    Stage("8192", 8192, PIECES, ("uniform", "least_error_model"), documents=8),
    Stage("peers", 2048, SQUARE, PEERS, points=(0, 1, 2)),
    Stage("4096", 4096, PIECES, BEST),
    Stage("promises", PROMISED_AT, PIECES, (PROMISED,), points=()),
    Stage("tries", 2048, PIECES, (TRIED_ON, *TRIES[:-1]), documents=8, points=(0, 1)),
    Stage("tries", 2048, SQUARE, (TRIED_ON, BY_BLOCK), documents=8, points=(0, 1)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=10_800, help="begin no further row beyond; 3 hours"
    )
    known = list(dict.fromkeys(stage.name for stage in STAGES))
    parser.add_argument("--stages", help="only these: " + ",".join(known))
    parser.add_argument("--rows", type=Path, default=cache_folder() / "real_model.rows.jsonl")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--summary", action="store_true", help="compute no rows")
    parser.add_argument("--json", type=Path, default=RESULTS / "real_model.json")
    asked = parser.parse_args()
    wanted = asked.stages.split(",") if asked.stages else known
    for name in wanted:
        if name not in known:
            parser.error(f"--stages: {name!r} is unknown; known are {', '.join(known)}")
    torch.set_num_threads(asked.threads)
    until = monotonic() + asked.seconds
    weights = sha256_of(weights_of(folder_of(MODEL)))
    belongs_to = {"weights_sha256": weights, "selection": SELECTION.model_dump()}
    asked.rows.parent.mkdir(parents=True, exist_ok=True)
    try:
        journal = Journal.open(asked.rows, belongs_to, Row)
    except EvaluationError as error:
        raise SystemExit(str(error)) from None
    restore(journal, asked.json, belongs_to)
    if not asked.summary:
        run([stage for stage in STAGES if stage.name in wanted], journal, until)
    rows = equal_work(journal.rows.values())
    if len(rows) < len(journal.rows):
        _say(f"{len(journal.rows) - len(rows)} rows of more pairs than uniform's are left out")
    if all(row.policy == DENSE_FIRST[0] for row in rows):
        _say("no row of a policy is there yet: no report is written")
        return
    promises = {nats: promise(nats, PROMISED_AT).loss for nats in PROMISES}
    found = summarise(rows, promises)
    deliver(asked.json, belongs_to=belongs_to, **found)
    draw(found["lines"], asked.json.with_suffix(".png"))


def run(stages: list[Stage], journal: Journal[Row], until: float) -> None:
    """Every row of the stages that is not there yet, document by document."""
    cache = cache_folder() / "texts"
    loaded = load(MODEL)
    texts = held_out(cache)
    began, todo = monotonic(), sum(_size(stage) for stage in stages)
    done = computed = 0
    for stage in stages:
        # Its profile may have to be measured first.
        made = (
            list(_policies(stage, loaded, cache, texts)) if monotonic() <= until else [DENSE_FIRST]
        )
        for document in texts[: stage.documents]:
            for name, share, policy in made:
                if monotonic() > until:
                    _say(f"time is up: {done} of {todo} rows; the same command goes on")
                    return
                done += 1
                if _one(loaded, journal, stage, document, name, share, policy):
                    computed += 1
                    left = (monotonic() - began) / computed * (todo - done)
                    _say(
                        f"{done} of {todo}: {stage.context} tokens, {stage.size.name}, "
                        f"{name}, {document.name}; about {left / 60:.0f} min left"
                    )


def _size(stage: Stage) -> int:
    return stage.documents * (1 + (len(stage.points) or len(PROMISES)) * len(stage.policies))


def _policies(
    stage: Stage, loaded: Loaded, cache: Path, texts: list[Document]
) -> Iterator[tuple[str, float, Chosen]]:
    """Name and share of everything that a stage compares, dense first; of promises, their nats."""
    yield DENSE_FIRST
    if stage.policies == (PROMISED,):
        for nats in PROMISES:
            yield PROMISED, nats, promised(promise(nats, stage.context))
        return
    profile = profile_of(stage.size, stage.context, cache)
    few = calibration(cache)[::3]
    # On others it computes more than its budgets: here is what it could do for as much.
    own = {BY_BLOCK: texts[: stage.documents]}
    watched = {
        name: watch(name, loaded, own.get(name, few), stage.context)
        for name in stage.policies
        if name not in BUDGETS
    }
    for point in stage.points:
        blocks = BLOCKS[stage.context][point]
        share = share_of(blocks, stage.context)
        for name in stage.policies:
            if name in BUDGETS:
                made = chosen(name, profile, stage.size, stage.context, blocks)
            elif name == BY_BLOCK:
                made = by_query_block(profile, watched[name], stage.context, blocks)
            else:
                made = online(name, watched[name], share)
            yield name, round(share, 4), made


def profile_of(size: Size, context: int, cache: Path) -> ModelProfile:
    """What the model's heads need in pieces of this size: measured once, kept in the cache."""
    contexts = (2048, 4096) if context <= 4096 else (context,)
    folder = cache.parent / "profiles"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{MODEL}-{size.name}-{contexts[-1]}.json"
    if path.exists():
        return ModelProfile.load(path)
    prompts = folder / "calibration.jsonl"
    prompts.write_text(as_jsonl(calibration(cache)), encoding="utf-8")
    with shown(f"profile {size.name}", " layers") as show:
        profile = measure(
            MODEL,
            prompts,
            contexts,
            block_tokens=size.block,
            piece_tokens=size.piece,
            selection=size.selection,
            gradients=size == SQUARE and context <= 4096,
            state=path.with_suffix(".parts"),
            progress=show,
        )
    profile.save(path)
    return profile


def _one(
    loaded: Loaded,
    journal: Journal[Row],
    stage: Stage,
    document: Document,
    name: str,
    share: float,
    made: Chosen,
) -> bool:
    """Compute a row where it is not there yet with the pairs of its budgets; whether it was not."""
    size = "" if made.policy is None else stage.size.name
    key = (stage.context, size, name, share, made.setup, document.name)
    found = journal.rows.get(key)
    if found is not None and (made.pairs is None or isclose(found.pairs, made.pairs)):
        return False
    ids = tuple(loaded.tokenizer(document.text, verbose=False)["input_ids"][: stage.context])
    begin = perf_counter()
    nats, computed = surprise(
        loaded.model, ids, scored_tokens(len(ids)), made.policy, stage.size.block
    )
    pairs = computed.tiles / computed.dense_tiles
    journal.add(Row(*key, document.kind, nats, pairs, round(perf_counter() - begin, 2)))
    return True


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
