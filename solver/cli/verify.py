"""`hplb verify PLAN.json`: anyone's plan, checked with code the solvers do not share."""

import dataclasses
import json
import math
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from profiles.cli.console import clear_errors
from profiles.cli.flags import AsJson, FlagError
from profiles.files import read_json
from solver.cli.progress import search_shown
from solver.plans import Plan
from solver.verifier import TIME_LIMIT_S, Verdict, verify

FAULTY, UNPROVED = 1, 3
"""Exit codes; 2 is typer's for wrong use."""


@clear_errors()
def verify_command(
    plan: Annotated[Path, typer.Argument(help="A plan's JSON.")],
    time_limit: Annotated[
        float, typer.Option(help="Seconds in all to prove the layers' bounds again.")
    ] = TIME_LIMIT_S,
    strict: Annotated[
        bool, typer.Option("--strict", help="An unproved bound is a fault: exit 1 instead of 3.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a plan with code the solvers do not share, and prove its bounds again.

    Exits 0 if everything holds, 1 if anything is wrong, 3 if nothing is, but some bound could not
    be proved in the time limit.

    Example: hplb verify plan.json --time-limit 60
    """
    if not time_limit >= 0:
        raise FlagError(f"--time-limit: {time_limit} is not a number of seconds")
    Plan.load(plan)
    until = time.monotonic() + time_limit
    with search_shown("verifying") as show:

        def settled(bounds: int, layers: int) -> None:
            left = timedelta(seconds=math.ceil(max(0.0, until - time.monotonic())))
            more = f", at most {left} left" if bounds < layers else ""
            show(bounds, layers, f"layers' bounds settled{more}")

        verdict = verify(read_json(plan), time_limit_s=time_limit, on_bound=settled)
    typer.echo(json.dumps(_fields(verdict)) if as_json else "\n".join(_lines(verdict)))
    if not verdict.ok or (strict and verdict.unproved):
        raise typer.Exit(FAULTY)
    if verdict.unproved:
        raise typer.Exit(UNPROVED)


def _fields(verdict: Verdict) -> dict[str, object]:
    return {
        "ok": verdict.ok,
        "faults": verdict.faults,
        "unproved": verdict.unproved,
        "layers": [dataclasses.asdict(layer) for layer in verdict.layers],
    }


def _lines(verdict: Verdict) -> list[str]:
    unproved = [
        f"layer {index}: bound {layer.claimed_s:.6g} s unproved, {layer.proved_s:.6g} s proved"
        for index, layer in enumerate(verdict.layers)
        if layer.verdict == "unproved"
    ]
    lines = verdict.faults + unproved
    if not verdict.faults:
        lines.append("the plan keeps every promise" + (" but unproved bounds" if unproved else ""))
    if unproved:
        lines.append(f"{len(unproved)} of {len(verdict.layers)} layers' bounds are unproved")
    return lines
