"""`hplb compare`: every method on one model, over device counts and deployments."""

import json
from pathlib import Path
from typing import Annotated

import typer

from profiles.console import clear_errors, console
from profiles.cost.catalogue import catalogue_rates
from profiles.library import DEFAULT_PROFILE, resolve_profile
from solver import options
from solver.budgets.options import FLOOR_TOKENS
from solver.compare import METHODS, compare, notes, rules_of
from solver.options import build_request, check_folders
from solver.progress import interruptible, search_bar, show_progress
from solver.request import PlanRequest
from solver.table import comparison_table


@clear_errors()
def compare_command(
    profile: options.Profile = DEFAULT_PROFILE,
    gpus: Annotated[str, typer.Option(help="Device counts, e.g. 2,4,8.")] = "2,4,8",
    device_type: options.DeviceType = "h200",
    context: options.Context = options.DEFAULT_CONTEXT,
    phase: options.Phase = "prefill",
    batch_size: options.Batch = 1,
    block_tokens: options.BlockTokens = None,
    piece_tokens: options.PieceTokens = None,
    deployment: Annotated[
        str, typer.Option(help="Deployments to compare, comma-separated.")
    ] = "disaggregated,tensor_parallel",
    budget_policy: options.Policy = "profile",
    budget_tokens: options.BudgetTokens = None,
    budget_recovery: options.BudgetRecovery = 0.9,
    budget_scope: options.BudgetScope = "layer",
    budget_total: options.BudgetTotal = "tiles",
    curve: options.Curve = None,
    margin: options.Margin = 0.0,
    floor_tokens: options.Floor = FLOOR_TOKENS,
    unit: options.Unit = "head",
    equal_counts: options.EqualCounts = False,
    copies: options.Copies = "priced",
    method: Annotated[
        str, typer.Option("--method", "--methods", help="Methods to compare, comma-separated.")
    ] = ",".join(METHODS),
    time_limit: options.TimeLimit = 10.0,
    tolerance: options.Tolerance = 1e-3,
    as_json: options.AsJson = False,
    plot: Annotated[Path | None, typer.Option(help="Draw each device's load to this PNG.")] = None,
) -> None:
    """Compare the methods on one model over device counts and deployments; predicted seconds."""
    check_folders(plot)
    counts = options.whole_numbers("gpus", gpus) or []
    loaded = resolve_profile(profile)
    requests = [
        build_request(
            profile=profile,
            gpus=count,
            device_type=device_type,
            context_tokens=context,
            phase=phase,
            batch_size=batch_size,
            block_tokens=block_tokens,
            piece_tokens=piece_tokens,
            deployment=each_deployment,
            budget=options.budget(
                budget_policy,
                budget_tokens,
                budget_recovery,
                budget_scope,
                budget_total,
                curve,
                margin,
                floor_tokens,
            ),
            placement={"copies": copies, **rules_of(each_method, unit, equal_counts)},
            method="auto" if each_method == "divided" else each_method,
            time_limit_s=time_limit,
            tolerance=tolerance,
        )
        for count in counts
        for each_deployment in deployment.split(",")
        for each_method in method.split(",")
    ]
    rates = catalogue_rates([device_type], requests[0].phase)
    with search_bar() as bar:
        task = bar.add_task("", total=len(requests), detail="")

        def announce(request: PlanRequest) -> None:
            name = "divided" if request.placement.divisible else request.method
            words = f"{name}, {request.gpus} devices, {request.deployment}"
            bar.update(task, description=words, advance=1, detail="")

        show = show_progress(bar, task)
        rows = interruptible(lambda stop: compare(requests, loaded, rates, announce, show, stop))
    if as_json:
        typer.echo(json.dumps([row.to_json() for row in rows]))
    else:
        console.print(comparison_table(rows))
        for note in notes(rows):
            console.print(f"[yellow]note[/]: {note}", highlight=False)
    if plot is not None:
        from solver.plot import plot_loads

        plot_loads(rows, plot)
