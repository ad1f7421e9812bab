"""The same requests through vLLM, stock and by plans: `python -m benchmarks.serving`, two cores.

    $(tests/engines/make_environment.sh FOLDER)/bin/python -m benchmarks.serving
        [--requests 4] [--gap-seconds 8] [--rounds 2] [--note TEXT] [--json [FILE]]

SmolLM2-135M (9 query and 3 KV heads, which no stock engine divides by two) in float32 answers over
HTTP, four ways: vLLM as it is on two threads of one process, and on two ranks of a core each the
checkpoints that `hplb apply` writes, contiguous with budgets that cover everything, contiguous with
the plan's, and placed by the plan, as `hplb plan` makes it from the shipped rates of a CPU.
Requests have the shape of Azure's published trace of coding (`trace`); the text is held-out
docstrings, another in each round. One server stands at a time, for all rounds of its row: four do
not fit into 24 GB. Loss is that of the plan's budgets in transformers, of the ends of the first
round's prompts.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

import httpx
import torch
import transformers
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from benchmarks import report
from benchmarks.cpu_attention import spread
from benchmarks.engines.plans import (
    ADAPTIVE,
    BASE,
    DENSE,
    DIVIDED,
    RANKS,
    ROWS,
    SHARE,
    plans,
)
from executor.evaluation.loaded import load
from executor.evaluation.losses import losses
from executor.evaluation.texts import scored_tokens, windows
from executor.inference.budget_policy import BudgetPolicy
from executor.weights.apply import apply
from profiles.catalogue import catalogue_profile, catalogue_rates
from profiles.errors import HplbError
from profiles.measuring.loading import folder_of
from solver.plans import Plan

MODEL = "smollm2-135m"
LONGEST, PLANNED = 8192, 4096
"""Tokens that the model and dense budgets reach, and the context that budgets are planned for."""
STOCK, CONTIGUOUS = "stock, one process", "padded contiguous"
PLACED = {BASE: LONGEST, CONTIGUOUS: PLANNED, DIVIDED: PLANNED}
"""The rows of `benchmarks.engines` that are served, and the context that each is planned for."""
PROMPT, MADE = (1500.0, 1.0, 2048, 7437), (13.0, 0.9, 6, 64)
"""Of a lognormal: its median, its sigma, the least and the most."""
WARM_TOKENS = 1024
ENGINE = {
    "enforce-eager": True,
    "dtype": "float32",
    "block-size": 64,
    "max-model-len": LONGEST,
    "max-num-batched-tokens": 2048,
    "max-num-seqs": 8,
    "seed": 0,
}
SEED = 1
CACHE_GB = "2"
Found = dict[str, Any]
Metrics = dict[tuple[str, str], float]
"""HPLB's numbers: by name and rank, over phases."""
TIMED = {"hplb_sample_every": 1}
"""Of HPLB's plugin: attention of every step is timed."""
ATTENTION = "hplb_attention_seconds_total"


@dataclass(frozen=True)
class Request:
    """When it comes, seconds after the first, and its tokens."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Answer:
    """Seconds from when it was due to its first and its last token, and the tokens."""

    first_s: float
    last_s: float
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Round:
    """All answers of a row, seconds from the first request to the last token, and how HPLB's
    counters rose meanwhile."""

    answers: list[Answer]
    wall_s: float
    counted: Metrics


def trace(count: int, gap_s: float, draw: random.Random) -> list[Request]:
    """Requests of the shape of Azure's trace of coding (AzurePublicDataset, November 2023; medians
    of 1,500 prompt and 13 generated tokens: Patel et al., Splitwise, ISCA 2024).

    Lognormal about those medians; of the prompts those from 2,048 tokens to the trace's most,
    7,437. Poisson arrivals `gap_s` apart on average, which is stretched: the trace has several a
    second.
    """
    found, at_s = [], 0.0
    for _ in range(count):
        found.append(Request(at_s, _lognormal(draw, *PROMPT), _lognormal(draw, *MADE)))
        at_s += draw.expovariate(1 / gap_s)
    return found


def _lognormal(draw: random.Random, middle: float, sigma: float, least: int, most: int) -> int:
    """Drawn again until it is in the range."""
    while True:
        found = round(middle * draw.lognormvariate(0.0, sigma))
        if least <= found <= most:
            return found


class Server:
    """vLLM's OpenAI server with a model; of ranks, `told` what HPLB's plugin is, and ours alone
    loaded."""

    def __init__(
        self, folder: Path, ranks: int, cores: Sequence[int], log: Path, told: Found | None = None
    ) -> None:
        self._model, self._log = str(folder), log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = {**ENGINE, "model": folder, "tensor-parallel-size": ranks, "port": port}
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host=127.0.0.1"]
        command += [f"--{k}" if v is True else f"--{k}={v}" for k, v in options.items()]
        if ranks > 1:
            command.append(f"--additional-config={json.dumps(TIMED | (told or {}))}")
        bound = ("|" if ranks > 1 else ",").join(map(str, cores))
        environment = {
            **os.environ,
            "VLLM_CPU_KVCACHE_SPACE": CACHE_GB,
            "VLLM_CPU_OMP_THREADS_BIND": bound,
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_PLUGINS": "hplb",
            "HF_HUB_OFFLINE": "1",
        }
        with log.open("w") as out:
            self._process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=None)

    def wait(self) -> None:
        """Until it answers. Raises HplbError with the end of its log where it ends instead."""
        while not self._healthy():
            if self._process.poll() is not None:
                said = self._log.read_text()[-2000:]
                raise HplbError(f"{self._model}: vLLM ended at its start:\n{said}")
            time.sleep(0.5)

    def _healthy(self) -> bool:
        try:
            return self._client.get("/health").is_success
        except httpx.TransportError:
            return False

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._client.close()

    def warm(self) -> None:
        """A request that nobody counts."""
        self.ask([Request(0.0, WARM_TOKENS, 2)], [[*range(100, 100 + WARM_TOKENS)]])

    def ask(self, requests: Sequence[Request], prompts: Sequence[Sequence[int]]) -> Round:
        """Hand requests over when they are due, and take what comes."""
        before, began = self.numbers(), time.perf_counter()

        def one(request: Request, prompt: Sequence[int]) -> Answer:
            due = began + request.at_s
            time.sleep(max(0.0, due - time.perf_counter()))
            body = {"model": self._model, "prompt": prompt, "max_tokens": request.output_tokens}
            body |= {"temperature": 0, "ignore_eos": True, "stream": True, "return_token_ids": True}
            times, tokens = [], list[int]()
            with self._client.stream("POST", "/v1/completions", json=body) as reply:
                reply.raise_for_status()
                for line in reply.iter_lines():
                    said = line.removeprefix("data: ")
                    if said.startswith("{"):
                        times.append(time.perf_counter())
                        tokens += self._said(json.loads(said))["token_ids"]
            return Answer(times[0] - due, times[-1] - due, tuple(tokens))

        with ThreadPoolExecutor(len(requests)) as pool:
            answers = list(pool.map(one, requests, prompts))
        ends = (each.last_s + request.at_s for each, request in zip(answers, requests, strict=True))
        counted = {
            key: value - before.get(key, 0.0)
            for key, value in self.numbers().items()
            if key[0].endswith("_total")
        }
        return Round(answers, max(ends), counted)

    def _said(self, part: Found) -> Found:
        """A part of an answer. Raises HplbError with the end of the log where it is a fault."""
        if "choices" not in part:
            raise HplbError(f"{self._model}: {part}\n{self._log.read_text()[-4000:]}")
        found: Found = part["choices"][0]
        return found

    def numbers(self) -> Metrics:
        """HPLB's, as they are."""
        text = self._client.get("/metrics").raise_for_status().text
        found: Metrics = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith("hplb_"):
                    key = sample.name, sample.labels["rank"]
                    found[key] = found.get(key, 0.0) + sample.value
        return found


def served(
    folder: Path,
    ranks: int,
    requests: Sequence[Request],
    prompts: Sequence[Sequence[tuple[int, ...]]],
    log: Path,
) -> list[Round]:
    """The rounds of a row, each of its own `prompts`, from a server that stands for them alone."""
    server = Server(folder, ranks, cores(), log)
    try:
        server.wait()
        server.warm()
        return [server.ask(requests, of_round) for of_round in prompts]
    finally:
        server.end()


def cores() -> list[int]:
    """A core for every rank. Raises HplbError where there are fewer."""
    found = sorted(os.sched_getaffinity(0))[:RANKS]
    if len(found) < RANKS:
        raise HplbError(f"serving: needs {RANKS} cores, this process may use {len(found)}")
    return found


def placed(limit_s: float) -> dict[str, Plan]:
    """The plans of `PLACED`, with the shipped rates of a CPU."""
    profile, made = catalogue_profile(MODEL), {}
    rates = catalogue_rates(["cpu"], "prefill")["cpu"]
    for context in dict.fromkeys(PLACED.values()):
        rows = [row for row in ROWS if PLACED.get(row.name) == context]
        made |= {row.name: plan for row, plan in plans(profile, context, rates, limit_s, rows)}
    return made


def texts(requests: Sequence[Request], rounds: int) -> list[list[tuple[int, ...]]]:
    """Prompts of every round, of the requests' lengths, no text twice."""
    tokenizer = AutoTokenizer.from_pretrained(folder_of(MODEL), local_files_only=True)
    each = sum(request.prompt_tokens for request in requests)
    (text,) = windows(None, tokenizer, each * rounds, 1)
    left, found = iter(text), []
    for _ in range(rounds):
        found.append([tuple(next(left) for _ in range(r.prompt_tokens)) for r in requests])
    return found


def loss(plan: Plan, prompts: Sequence[tuple[int, ...]]) -> Found:
    """What the plan's budgets cost on these prompts, and how much of dense attention they are."""
    policies, block = (BudgetPolicy.of_plan(plan), None), plan.workload.block_tokens
    nats, shares = losses(load(MODEL), prompts, policies, block, lambda *_: None)
    return {
        "prompts": len(prompts),
        "scored_tokens": sum(scored_tokens(len(prompt)) for prompt in prompts),
        "dense_nats": float(nats[:, 1].mean()),
        "over_dense_nats": spread((nats[:, 0] - nats[:, 1]).tolist()),
        "density": float(shares[:, 0].mean()),
    }


def tokens_of(requests: Sequence[Request]) -> int:
    """Read and made in a round."""
    return sum(request.prompt_tokens + request.output_tokens for request in requests)


def summarise(
    name: str, requests: Sequence[Request], rounds: Sequence[Round], stock: Sequence[Round]
) -> Found:
    """A row's figures: medians over rounds with the least and the most; `p90` of all requests.

    `ranks_s` are seconds of attention of every rank, of the thread that computes it, `over_mean`
    the busier rank's over the mean of both; `stock_answers` the share of requests to which stock
    vLLM gave the same tokens.
    """
    answers = [answer for each in rounds for answer in each.answers]
    theirs = [answer for each in stock for answer in each.answers]
    tiles, dense = (
        sum(each.counted[key] for each in rounds for key in each.counted if key[0] == name)
        for name in ("hplb_tiles_total", "hplb_dense_tiles_total")
    )
    ranks = sorted(rank for name, rank in rounds[0].counted if name == ATTENTION)
    attention = [[each.counted[ATTENTION, rank] for rank in ranks] for each in rounds]
    same = sum(a.tokens == b.tokens for a, b in zip(answers, theirs, strict=True))
    return {
        "row": name,
        "rounds": len(rounds),
        "wall_s": spread([each.wall_s for each in rounds]),
        "tokens_per_s": spread([tokens_of(requests) / each.wall_s for each in rounds]),
        "first_token_s": spread([median(a.first_s for a in each.answers) for each in rounds]),
        "first_token_p90_s": p90([a.first_s for a in answers]),
        "next_token_s": spread([median(map(next_s, each.answers)) for each in rounds]),
        "next_token_p90_s": p90([next_s(a) for a in answers]),
        "ranks_s": [spread(list(of_rank)) for of_rank in zip(*attention, strict=True)],
        "over_mean": spread([max(s) / mean(s) for s in attention]) if ranks else None,
        "tiles_of_dense": tiles / dense if dense else None,
        "stock_answers": same / len(answers),
    }


def next_s(answer: Answer) -> float:
    """Seconds a token after the first."""
    return (answer.last_s - answer.first_s) / (len(answer.tokens) - 1)


def p90(values: Sequence[float]) -> float:
    return quantiles(values, n=10, method="inclusive")[-1]


def flags(description: str | None, requests: int, rounds: str) -> argparse.ArgumentParser:
    """Of whatever sends requests: so many of a round unless told, and what `rounds` are of."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=requests, help="of a round")
    parser.add_argument("--gap-seconds", type=float, default=8, help="between them, on average")
    parser.add_argument("--rounds", type=int, default=2, help=rounds)
    parser.add_argument("--plan-seconds", type=float, default=3, help="of every plan")
    parser.add_argument("--note", default="", help="what else the machine was doing")
    return parser


def main() -> None:
    parser = flags(__doc__, 4, "of every row")
    parser.add_argument("--loss-prompts", type=int, default=2, help="of the first round")
    asked = report.arguments(parser)
    began, busy = time.time(), os.getloadavg()[0]
    requests = trace(asked.requests, asked.gap_seconds, random.Random(SEED))
    prompts = texts(requests, asked.rounds)
    made = placed(asked.plan_seconds)
    say("the loss of the plan's budgets")
    cost = loss(made[DIVIDED], prompts[0][: asked.loss_prompts])
    found: dict[str, list[Round]] = {}
    with tempfile.TemporaryDirectory(prefix="hplb-serving-") as name:
        scratch, source = Path(name), folder_of(MODEL)
        say(STOCK)
        found[STOCK] = served(source, 1, requests, prompts, scratch / "log")
        for row, plan in made.items():
            say(row)
            folder = scratch / row.replace(" ", "-")
            apply(source, plan, folder, False, lambda *_: None)
            found[row] = served(folder, RANKS, requests, prompts, scratch / "log")
    rows = [
        {
            **summarise(row, requests, rounds, found[STOCK]),
            "budgets": ADAPTIVE if PLACED.get(row) == PLANNED else DENSE,
        }
        for row, rounds in found.items()
    ]
    Console(file=report.table_to(asked.json), width=150).print(table(rows, cost))
    deliver(asked, began, busy, requests, loss=cost, rows=rows)


def deliver(
    asked: argparse.Namespace, began: float, busy: float, requests: Sequence[Request], **found: Any
) -> None:
    """What was found, with all that it was found with; `busy` was the load when it began."""
    note = "vLLM on two cores, fp32, eager, chunks of 2,048 tokens"
    report.deliver(
        asked.json,
        note=f"{note}; {asked.note}" if asked.note else note,
        vllm=version("vllm-cpu"),
        torch=torch.__version__,
        transformers=transformers.__version__,
        model=MODEL,
        planned_tokens=PLANNED,
        share=SHARE,
        load_before_and_after=[busy, os.getloadavg()[0]],
        seconds=time.time() - began,
        requests=[asdict(request) for request in requests],
        **found,
    )


HEADS = (
    *("rounds", "tokens/s", "first token, s", "p90", "next token, ms"),
    *(f"rank {rank}, s" for rank in range(RANKS)),
)
"""Of what every row has."""


def cells(row: Found) -> tuple[str, ...]:
    return (
        str(row["rounds"]),
        f"{row['tokens_per_s']['median']:.0f}",
        f"{row['first_token_s']['median']:.2f}",
        f"{row['first_token_p90_s']:.2f}",
        f"{1e3 * row['next_token_s']['median']:.0f}",
        *([f"{rank['median']:.2f}" for rank in row["ranks_s"]] or [""] * RANKS),
    )


def table(rows: Sequence[Found], cost: Found) -> Table:
    shown = Table(title="Requests over HTTP")
    for head in ("placement", *HEADS, "tiles of dense", "as stock", "loss over dense"):
        shown.add_column(head, justify="left" if head == "placement" else "right")
    for row in rows:
        tiles, dense = row["tiles_of_dense"], row["budgets"] == DENSE
        shown.add_row(
            row["row"],
            *cells(row),
            "" if tiles is None else f"{tiles:.1%}",
            f"{row['stock_answers']:.0%}",
            "0" if dense else f"{cost['over_dense_nats']['median']:+.4f}",
        )
    return shown


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except HplbError as error:
        sys.exit(str(error))
