"""`hplb plan`: one plan, from flags that mirror the body of `POST /plan`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from profiles.console import clear_errors, console
from profiles.cost.catalogue import catalogue_rates
from profiles.library import DEFAULT_PROFILE, resolve_profile
from profiles.model import ModelProfile, write_atomically
from solver import options
from solver.budgets.options import FLOOR_TOKENS
from solver.commands.verify import read_text
from solver.compare import METHODS
from solver.explain import explain
from solver.options import RequestError, build_request, check_folders, device_groups
from solver.plan import Plan
from solver.planner import Known, make_plan
from solver.predict import planned_problem
from solver.progress import interruptible, search_bar, show_progress
from solver.request import PlanRequest, WorkloadOptions
from solver.table import explain_table, plan_table


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
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            "--context-tokens",
            help=f"Context length in tokens; {options.DEFAULT_CONTEXT} unless --workloads.",
        ),
    ] = None,
    phase: options.Phase = "prefill",
    batch_size: options.Batch = 1,
    block_tokens: options.BlockTokens = None,
    piece_tokens: options.PieceTokens = None,
    workloads: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --context: a JSON list of workloads "
            "({context_tokens, batch_size, phase, weight, profile, sample}) to place for at once."
        ),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="Of several workloads: their weighted mean, or the worst.")
    ] = "mean",
    deployment: Annotated[
        str, typer.Option(help="disaggregated or tensor_parallel.")
    ] = "disaggregated",
    budget_policy: options.Policy = "profile",
    budget_tokens: options.BudgetTokens = None,
    budget_recovery: options.BudgetRecovery = 0.9,
    budget_scope: options.BudgetScope = "layer",
    budget_total: options.BudgetTotal = "tiles",
    budget_density: options.BudgetDensity = None,
    budget_contexts: options.BudgetContexts = None,
    curve: options.Curve = None,
    margin: options.Margin = 0.0,
    floor_tokens: options.Floor = FLOOR_TOKENS,
    fill: options.Fill = False,
    unit: options.Unit = "head",
    equal_counts: options.EqualCounts = False,
    divisible: options.Divisible = False,
    max_copies: options.MaxCopies = None,
    copies: options.Copies = "priced",
    memory: options.Memory = False,
    kv_retention: options.KvRetention = None,
    memory_limit: options.MemoryLimit = None,
    node_size: options.NodeSize = None,
    current_plan: Annotated[
        Path | None, typer.Option(help="The plan in force: moving away from it is priced.")
    ] = None,
    amortise_steps: Annotated[
        int, typer.Option(help="Steps over which moving must pay for itself.")
    ] = 1000,
    method: Annotated[str, typer.Option(help=f"auto, {', '.join(METHODS[:-2])}.")] = "auto",
    time_limit: options.TimeLimit = 10.0,
    tolerance: options.Tolerance = 1e-3,
    seed: options.Seed = None,
    explained: Annotated[
        bool, typer.Option("--explain", help="Name for every layer what binds it.")
    ] = False,
    as_json: options.AsJson = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the plan here.")] = None,
    lp: Annotated[
        Path | None, typer.Option(help="Write every layer's integer program to this folder.")
    ] = None,
) -> None:
    """Decide which device computes which head, with a proof of how good the plan is."""
    check_folders(out, lp)
    if gpus is None and devices is None:
        gpus = 8
    steps = None if workloads is None else _workloads(workloads)
    request = build_request(
        profile=profile,
        gpus=gpus,
        devices=device_groups(devices) if devices is not None else None,
        device_type=device_type,
        context_tokens=options.DEFAULT_CONTEXT if context is None and steps is None else context,
        phase=phase,
        batch_size=batch_size,
        workloads=steps,
        objective=objective,
        block_tokens=block_tokens,
        piece_tokens=piece_tokens,
        deployment=deployment,
        budget={
            **options.budget(
                budget_policy,
                budget_tokens,
                budget_recovery,
                budget_scope,
                budget_total,
                curve,
                margin,
                floor_tokens,
            ),
            "density": budget_density,
            "contexts": options.whole_numbers("budget-contexts", budget_contexts),
            "fill": fill,
        },
        placement={
            "unit": unit,
            "equal_counts": equal_counts,
            "divisible": divisible,
            "max_copies": max_copies,
            "copies": copies,
            "memory": options.memory(memory, kv_retention, memory_limit),
            "node_size": node_size,
            "current_plan": None if current_plan is None else str(current_plan),
            "amortise_steps": amortise_steps,
        },
        method=method,
        time_limit_s=time_limit,
        tolerance=tolerance,
        seed=seed,
    )
    current = None
    if current_plan is not None:
        current = Plan.parse(read_text(current_plan), str(current_plan))
    known = [_known(request, step) for step in request.steps]
    with search_bar() as bar:
        task = bar.add_task(f"planning, {request.method}", total=None, detail="")
        show = show_progress(bar, task)
        made = interruptible(
            lambda stop: make_plan(
                request,
                known[0].profile,
                known[0].rates,
                show,
                stop,
                others=known[1:],
                current=current,
            )
        )
    # Shown before it is written: a path that fails then loses nothing.
    _show(made, explained, as_json)
    if lp is not None:
        _write_programs(made, lp)
    if out is not None:
        write_atomically(out, made.model_dump_json(indent=1) + "\n")


def _known(request: PlanRequest, step: WorkloadOptions) -> Known:
    named = step.profile or request.profile
    profile = named if isinstance(named, ModelProfile) else resolve_profile(named)
    return Known(profile, catalogue_rates(request.device_types, step.phase))


def _workloads(path: Path) -> list[dict[str, Any]]:
    try:
        steps = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise RequestError(f"{path}: no JSON: {error}") from None
    if not isinstance(steps, list):
        raise RequestError(f"{path}: must be a list of workloads, like the request's `workloads`")
    return steps


def _show(made: Plan, explained: bool, as_json: bool) -> None:
    if as_json:
        plan = made.model_dump(mode="json")
        whole = {"plan": plan, "explain": [e.to_json() for e in explain(made)]}
        typer.echo(json.dumps(whole if explained else plan))
        return
    console.print(plan_table(made))
    if explained:
        console.print(explain_table(explain(made)))
    for warning in ([made.reason] if made.reason else []) + made.warnings:
        console.print(f"[yellow]note[/]: {warning}", highlight=False)


def _write_programs(plan: Plan, folder: Path) -> None:
    from solver.placement.ilp import write_lp

    problem = planned_problem(plan)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(problem.layers):
            write_lp(problem.layer(index), folder / f"layer_{index:03d}.lp")
    except OSError as error:
        raise RequestError(f"{folder}: cannot be written: {error.strerror}") from None
