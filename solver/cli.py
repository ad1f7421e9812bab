"""`hplb plan`, `hplb compare`, `hplb verify`: planning without a server."""

import json
from pathlib import Path
from typing import Annotated

import typer

from profiles.console import clear_errors, console
from profiles.cost.catalogue import catalogue_rates
from profiles.library import DEFAULT_PROFILE, resolve_profile
from profiles.model import write_atomically
from solver import options
from solver.compare import METHODS, compare, notes
from solver.options import RequestError, build_request, device_groups
from solver.plan import Plan
from solver.planner import make_plan
from solver.predict import planned_problem
from solver.progress import interruptible, search_bar, show_progress
from solver.request import PlanRequest
from solver.table import comparison_table, plan_table
from solver.verify import verify

app = typer.Typer()


@app.command("plan")
@clear_errors()
def plan_command(
    profile: options.Profile = DEFAULT_PROFILE,
    gpus: Annotated[
        int | None, typer.Option(help="Number of devices of --device-type; 8 unless --devices.")
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="Instead of --gpus: TYPE:COUNT,... in index order.")
    ] = None,
    device_type: options.DeviceType = "h200",
    context: options.Context = options.DEFAULT_CONTEXT,
    phase: options.Phase = "prefill",
    batch_size: options.Batch = 1,
    deployment: Annotated[
        str, typer.Option(help="disaggregated or tensor_parallel.")
    ] = "disaggregated",
    budget_policy: options.Policy = "profile",
    budget_tokens: options.BudgetTokens = None,
    budget_recovery: options.BudgetRecovery = 0.9,
    budget_scope: options.BudgetScope = "layer",
    budget_total: options.BudgetTotal = "tiles",
    unit: options.Unit = "head",
    equal_counts: options.EqualCounts = False,
    method: Annotated[str, typer.Option(help=f"auto, {', '.join(METHODS[:-1])}.")] = "auto",
    time_limit: options.TimeLimit = 10.0,
    tolerance: options.Tolerance = 1e-3,
    as_json: options.AsJson = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the plan here.")] = None,
    lp: Annotated[
        Path | None, typer.Option(help="Write every layer's integer program to this folder.")
    ] = None,
) -> None:
    """Decide which device computes which head, with a proof of how good the plan is."""
    _check_folders(out, lp)
    if gpus is None and devices is None:
        gpus = 8
    request = build_request(
        profile=profile,
        gpus=gpus,
        devices=device_groups(devices) if devices is not None else None,
        device_type=device_type,
        context_tokens=context,
        phase=phase,
        batch_size=batch_size,
        deployment=deployment,
        budget=_budget(budget_policy, budget_tokens, budget_recovery, budget_scope, budget_total),
        placement={"unit": unit, "equal_counts": equal_counts},
        method=method,
        time_limit_s=time_limit,
        tolerance=tolerance,
    )
    rates = catalogue_rates(request.device_types, request.phase)
    with search_bar() as bar:
        task = bar.add_task(f"planning, {request.method}", total=None, detail="")
        show, loaded = show_progress(bar, task), resolve_profile(profile)
        made = interruptible(lambda stop: make_plan(request, loaded, rates, show, stop))
    # Shown before it is written: a path that fails then loses nothing.
    if as_json:
        typer.echo(made.model_dump_json())
    else:
        console.print(plan_table(made))
        for warning in ([made.reason] if made.reason else []) + made.warnings:
            console.print(f"[yellow]note[/]: {warning}", highlight=False)
    if lp is not None:
        _write_programs(made, lp)
    if out is not None:
        write_atomically(out, made.model_dump_json(indent=1) + "\n")


@app.command("compare")
@clear_errors()
def compare_command(
    profile: options.Profile = DEFAULT_PROFILE,
    gpus: Annotated[str, typer.Option(help="Device counts, e.g. 2,4,8.")] = "2,4,8",
    device_type: options.DeviceType = "h200",
    context: options.Context = options.DEFAULT_CONTEXT,
    phase: options.Phase = "prefill",
    batch_size: options.Batch = 1,
    deployment: Annotated[
        str, typer.Option(help="Deployments to compare, comma-separated.")
    ] = "disaggregated,tensor_parallel",
    budget_policy: options.Policy = "profile",
    budget_tokens: options.BudgetTokens = None,
    budget_recovery: options.BudgetRecovery = 0.9,
    budget_scope: options.BudgetScope = "layer",
    budget_total: options.BudgetTotal = "tiles",
    unit: options.Unit = "head",
    equal_counts: options.EqualCounts = False,
    method: Annotated[
        str, typer.Option("--method", "--methods", help="Methods to compare, comma-separated.")
    ] = ",".join(METHODS),
    time_limit: options.TimeLimit = 10.0,
    tolerance: options.Tolerance = 1e-3,
    as_json: options.AsJson = False,
    plot: Annotated[Path | None, typer.Option(help="Draw each device's load to this PNG.")] = None,
) -> None:
    """Compare the methods on one model over device counts and deployments; predicted seconds."""
    _check_folders(plot)
    counts = _counts(gpus)
    loaded = resolve_profile(profile)
    requests = [
        build_request(
            profile=profile,
            gpus=count,
            device_type=device_type,
            context_tokens=context,
            phase=phase,
            batch_size=batch_size,
            deployment=each_deployment,
            budget=_budget(
                budget_policy, budget_tokens, budget_recovery, budget_scope, budget_total
            ),
            placement={"unit": unit, "equal_counts": equal_counts},
            method=each_method,
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
            words = f"{request.method}, {request.gpus} devices, {request.deployment}"
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


@app.command("verify")
@clear_errors()
def verify_command(
    plan: Annotated[Path, typer.Argument(help="A plan's JSON.")],
) -> None:
    """Check a plan with code the solvers do not share; exit 1 if it does not hold."""
    try:
        text = plan.read_text()
    except OSError as error:
        raise RequestError(f"{plan}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RequestError(f"{plan}: is not text, so no plan's JSON") from None
    Plan.parse(text, str(plan))
    checked = json.loads(text)
    faults = verify(checked)
    for fault in faults:
        typer.echo(fault)
    if faults:
        raise typer.Exit(1)
    typer.echo("the plan keeps every promise that was checked")
    searched = sum(layer["bound"] in ("cp_sat", "ilp (CBC)") for layer in checked["layers"])
    if searched:
        typer.echo(f"the bounds of {searched} layers were proved by search and taken as they are")


def _budget(
    policy: str, tokens: int | None, recovery: float, scope: str, total: str
) -> dict[str, object]:
    return {
        "policy": policy,
        "tokens": tokens,
        "recovery": recovery,
        "scope": scope,
        "total": total,
    }


def _check_folders(*paths: Path | None) -> None:
    """Refuse a path in a folder that is not there before anything is computed for it."""
    for path in paths:
        if path is not None and not path.absolute().parent.is_dir():
            raise RequestError(f"{path}: cannot be written: its folder does not exist")


def _counts(text: str) -> list[int]:
    counts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in counts):
        raise RequestError(f"gpus: {text!r} is not a list of whole numbers such as 2,4,8")
    return [int(part) for part in counts]


def _write_programs(plan: Plan, folder: Path) -> None:
    from solver.placement.ilp import write_lp

    problem = planned_problem(plan)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(problem.layers):
            write_lp(problem.layer(index), folder / f"layer_{index:03d}.lp")
    except OSError as error:
        raise RequestError(f"{folder}: cannot be written: {error.strerror}") from None
