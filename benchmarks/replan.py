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

import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from api.client.bodies import DeploymentRequest
from api.client.planner_client import PlannerClient
from api.demo.children import Children, free_port
from benchmarks import report
from benchmarks.engines.plans import DIVIDED, RANKS, ROWS, request
from benchmarks.serving import (
    CONTIGUOUS,
    HEADS,
    MODEL,
    PLANNED,
    SEED,
    Found,
    Request,
    Round,
    Server,
    cells,
    cores,
    deliver,
    flags,
    say,
    summarise,
    texts,
    tokens_of,
    trace,
)
from executor.weights.apply import apply
from profiles.catalogue import catalogue_profile
from profiles.errors import HplbError
from profiles.measuring.loading import folder_of
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
    profile = catalogue_profile(MODEL)
    return {
        row.name: client.plan(request(profile, PLANNED, limit_s, row))
        for row in ROWS
        if row.name in (CONTIGUOUS, DIVIDED)
    }


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
    asked = report.arguments(flags(__doc__, 3, "before and after"))
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
    tokens = tokens_of(requests)
    rows = [
        summarise(row, requests, rounds, found[BEFORE] if row == AFTER else rounds)
        for row, rounds in found.items()
    ]
    moved = {
        "live_s": live_s,
        "stall_s": stall_s,
        "loaded_bytes": loaded_bytes,
        **net(found, tokens),
    }
    Console(file=report.table_to(asked.json), width=150).print(table(rows), moved)
    deliver(asked, began, busy, requests, moved=moved, rows=rows)


def table(rows: Sequence[Found]) -> Table:
    shown = Table(title="A new plan amid requests")
    for head in ("", *HEADS, "as before"):
        shown.add_column(head, justify="right" if head else "left")
    for row in rows:
        same = f"{row['stock_answers']:.0%}" if row["row"] == AFTER else ""
        shown.add_row(row["row"], *cells(row), same)
    return shown


if __name__ == "__main__":
    try:
        main()
    except HplbError as error:
        sys.exit(str(error))
