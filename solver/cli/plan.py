"""`hplb plan`: one plan, from flags that mirror the body of `POST /plan`."""

import json
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from profiles.catalogue import DEFAULT_PROFILE, load_profile
from profiles.cli.console import clear_errors, console
from profiles.cli.flags import AsJson, check_file, check_folders, profile_names, whole_numbers
from profiles.files import read_json, write_atomically
from profiles.unmeasured import unmeasured_profile
from solver.budgets.options import FLOOR_TOKENS
from solver.cli import flags
from solver.cli.flags import device_groups
from solver.cli.progress import Searches, interruptible, search_shown
from solver.cli.table import explain_table, plan_table
from solver.planning.predict import planned_problem
from solver.plans import Plan
from solver.report.comparison import DEFAULT_CONTEXT, METHODS
from solver.report.explain import explain
from solver.report.picture import plan_picture
from solver.request import Method, PlanRequest, RequestError

UNMEASURED = ("dense", "uniform")
"""Budget policies that need nothing but a model's shape."""


@clear_errors()
def plan_command(
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
            help=f"A profile's name or the path of its JSON; {DEFAULT_PROFILE} unless --model.",
            autocompletion=profile_names,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Instead of --profile: a model's folder, for its shape alone; budgets are dense "
            "unless --budget-policy uniform."
        ),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(help="Number of devices of --device-type; 8 unless --devices.")
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="Instead of --gpus: TYPE:COUNT,... in index order.")
    ] = None,
    device_type: flags.DeviceType = "h200",
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            help=f"Context length in tokens; {DEFAULT_CONTEXT} unless --workloads.",
        ),
    ] = None,
    phase: flags.Phase = "prefill",
    batch_size: flags.Batch = 1,
    block_tokens: flags.BlockTokens = None,
    piece_tokens: flags.PieceTokens = None,
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
        str | None,
        typer.Option(help="disaggregated (unless --slots) or tensor_parallel (with --slots)."),
    ] = None,
    budget_policy: flags.Policy = None,
    budget_tokens: flags.BudgetTokens = None,
    budget_loss: flags.BudgetLoss = None,
    budget_recovery: flags.BudgetRecovery = 0.9,
    budget_scope: flags.BudgetScope = None,
    budget_total: flags.BudgetTotal = "tiles",
    budget_density: flags.BudgetDensity = None,
    budget_contexts: flags.BudgetContexts = None,
    curve: flags.Curve = None,
    margin: flags.Margin = 0.0,
    floor_tokens: flags.Floor = FLOOR_TOKENS,
    fill: flags.Fill = False,
    as_chosen: flags.AsChosen = False,
    unit: flags.Unit = "head",
    equal_counts: flags.EqualCounts = False,
    divisible: flags.Divisible = False,
    max_copies: flags.MaxCopies = None,
    slots: flags.Slots = None,
    copies: flags.Copies = "priced",
    memory: flags.Memory = False,
    kv_retention: flags.KvRetention = None,
    memory_limit: flags.MemoryLimit = None,
    node_size: flags.NodeSize = None,
    current_plan: Annotated[
        Path | None, typer.Option(help="The plan in force: moving away from it is priced.")
    ] = None,
    amortise_steps: Annotated[
        int, typer.Option(help="Steps over which moving must pay for itself.")
    ] = 1000,
    method: Annotated[
        str,
        typer.Option(
            help=f"auto, {', '.join(METHODS[:-2])}.", autocompletion=lambda: list(get_args(Method))
        ),
    ] = "auto",
    time_limit: flags.TimeLimit = 10.0,
    tolerance: flags.Tolerance = 1e-3,
    seed: flags.Seed = None,
    explained: Annotated[
        bool, typer.Option("--explain", help="Name for every layer what binds it.")
    ] = False,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the plan here.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw who computes what, busy and idle, to this SVG.")
    ] = None,
    lp: Annotated[
        Path | None, typer.Option(help="Write every layer's integer program to this folder.")
    ] = None,
) -> None:
    """Decide which device computes which head, with a proof of how good the plan is.

    Example: hplb plan --gpus 8 --context 131072 --divisible --plot plan.svg -o plan.json
    """
    check_folders(lp)
    check_file("--out", out)
    check_file("--plot", plot, ".svg")
    if gpus is None and devices is None:
        gpus = 8
    steps = None if workloads is None else _workloads(workloads)
    if model is not None:
        budget_policy = _policy_of_shape(profile, budget_policy)
    request = PlanRequest.checked(
        profile=unmeasured_profile(model) if model is not None else profile or DEFAULT_PROFILE,
        gpus=gpus,
        devices=device_groups(devices) if devices is not None else None,
        device_type=device_type,
        context_tokens=DEFAULT_CONTEXT if context is None and steps is None else context,
        phase=phase,
        batch_size=batch_size,
        workloads=steps,
        objective=objective,
        block_tokens=block_tokens,
        piece_tokens=piece_tokens,
        **({} if deployment is None else {"deployment": deployment}),
        budget={
            **flags.budget(
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
            "density": budget_density,
            "contexts": None
            if budget_contexts is None
            else whole_numbers("--budget-contexts", budget_contexts),
            "fill": fill,
            "as_chosen": as_chosen,
        },
        placement={
            "unit": unit,
            "equal_counts": equal_counts,
            "divisible": divisible,
            "max_copies": max_copies,
            "slots": flags.slots(slots),
            "copies": copies,
            "memory": flags.memory(memory, kv_retention, memory_limit),
            "node_size": node_size,
            "current_plan": None if current_plan is None else str(current_plan),
            "amortise_steps": amortise_steps,
        },
        method=method,
        time_limit_s=time_limit,
        tolerance=tolerance,
        seed=seed,
    )
    from solver.planning.planner import make_plan, rates_of  # slow to import: SciPy's solvers

    request = request.resolved(load_profile, Plan.load)
    words = f"planning, {request.method}"
    with search_shown(words) as show:
        searches = Searches(show, request.time_limit_s)
        searches.begin(words, 1)
        made = interruptible(
            lambda stop: make_plan(request, rates_of(request), searches.report, stop),
            searches.tick,
        )
    # Shown before it is written: a path that fails then loses nothing.
    _show(made, explained, as_json)
    if lp is not None:
        _write_programs(made, lp)
    if plot is not None:
        write_atomically(plot, plan_picture(made))
    if out is not None:
        write_atomically(out, made.model_dump_json(indent=1) + "\n")


def _policy_of_shape(profile: str | None, policy: str | None) -> str:
    """The budget policy where only a model's shape is known."""
    if profile is not None:
        raise RequestError("--model: is for plans without a profile; give --profile or --model")
    if policy not in (None, *UNMEASURED):
        raise RequestError(
            f"--budget-policy: {policy!r} needs what a profile knows of the heads; with --model it "
            f"is {' or '.join(UNMEASURED)} (`hplb profiles measure` makes a profile)"
        )
    return policy or UNMEASURED[0]


def _workloads(path: Path) -> list[dict[str, Any]]:
    steps = read_json(path)
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
    from solver.exact.ilp import write_lp

    problem = planned_problem(plan)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(problem.layers):
            write_lp(problem.layer(index), folder / f"layer_{index:03d}.lp")
    except OSError as error:
        raise RequestError(f"{folder}: cannot be written: {error.strerror}") from None
