"""`hplb compare`: every method on one model, over device counts and deployments."""

import json
from pathlib import Path
from typing import Annotated

import typer

from profiles.catalogue import DEFAULT_PROFILE
from profiles.cli.console import clear_errors, console
from profiles.cli.flags import AsJson, Profile, check_file, whole_numbers
from profiles.files import write_atomically
from solver.budgets.options import FLOOR_TOKENS
from solver.cli import flags
from solver.cli.progress import Searches, interruptible, search_shown
from solver.cli.table import comparison_table
from solver.report.comparison import (
    DEFAULT_CONTEXT,
    METHODS,
    compare_plans,
    comparison_requests,
    notes,
)
from solver.request import PlanRequest


@clear_errors()
def compare_command(
    profile: Profile = DEFAULT_PROFILE,
    gpus: Annotated[str, typer.Option(help="Device counts, e.g. 2,4,8.")] = "2,4,8",
    device_type: flags.DeviceType = "h200",
    context: flags.Context = DEFAULT_CONTEXT,
    phase: flags.Phase = "prefill",
    batch_size: flags.Batch = 1,
    block_tokens: flags.BlockTokens = None,
    piece_tokens: flags.PieceTokens = None,
    deployments: Annotated[
        str | None,
        typer.Option(
            help="Deployments to compare, comma-separated; both, or with --slots tensor_parallel."
        ),
    ] = None,
    budget_policy: flags.Policy = None,
    budget_tokens: flags.BudgetTokens = None,
    budget_loss: flags.BudgetLoss = None,
    budget_recovery: flags.BudgetRecovery = 0.9,
    budget_scope: flags.BudgetScope = None,
    budget_total: flags.BudgetTotal = "tiles",
    curve: flags.Curve = None,
    margin: flags.Margin = 0.0,
    floor_tokens: flags.Floor = FLOOR_TOKENS,
    unit: flags.Unit = "head",
    equal_counts: flags.EqualCounts = False,
    slots: flags.Slots = None,
    copies: flags.Copies = "priced",
    methods: Annotated[
        str,
        typer.Option(
            help="Methods to compare, comma-separated.", autocompletion=lambda: list(METHODS)
        ),
    ] = ",".join(METHODS),
    time_limit: flags.TimeLimit = 10.0,
    tolerance: flags.Tolerance = 1e-3,
    as_json: AsJson = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw each device's busy and idle time to this SVG.")
    ] = None,
) -> None:
    """Compare the methods on one model over device counts and deployments; predicted seconds.

    Example: hplb compare --gpus 2,4,8 --methods contiguous,greedy,divided --plot methods.svg
    """
    check_file("--plot", plot, ".svg")
    requests = comparison_requests(
        profile,
        whole_numbers("--gpus", gpus),
        None if deployments is None else deployments.split(","),
        methods.split(","),
        device_type=device_type,
        context_tokens=context,
        phase=phase,
        batch_size=batch_size,
        block_tokens=block_tokens,
        piece_tokens=piece_tokens,
        budget=flags.budget(
            budget_policy,
            budget_tokens,
            budget_loss,
            budget_recovery,
            budget_scope,
            budget_total,
            curve,
            margin,
            floor_tokens,
        ),
        unit=unit,
        equal_counts=equal_counts,
        slots=flags.slots(slots),
        copies=copies,
        time_limit_s=time_limit,
        tolerance=tolerance,
    )
    with search_shown("comparing") as show:
        searches = Searches(show, time_limit)

        def announce(request: PlanRequest) -> None:
            name = "divided" if request.placement.divisible else request.method
            words = f"{name}, {request.gpus} devices, {request.deployment}"
            searches.begin(words, len(requests))

        made = interruptible(
            lambda stop: compare_plans(requests, announce, searches.report, stop), searches.tick
        )
    rows = made.rows
    if as_json:
        typer.echo(json.dumps([row.to_json() for row in rows]))
    else:
        console.print(comparison_table(rows))
        for note in notes(rows):
            console.print(f"[yellow]note[/]: {note}", highlight=False)
    if plot is not None:
        write_atomically(plot, made.picture())
