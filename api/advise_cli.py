"""`hplb advise`: whether HPLB is worth it for a model, devices and traffic."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from api.client.planner_client import PlannerClient
from profiles.catalogue import catalogue_rates, load_profile
from profiles.cli.console import clear_errors, console
from profiles.cli.flags import AsJson, profile_names, whole_numbers
from profiles.cost.work import Phase
from profiles.model import ModelProfile
from profiles.traffic import StepClass, Traffic, read_traffic, tokens_of
from profiles.unmeasured import unmeasured_profile
from solver.cli import flags
from solver.cli.progress import Searches, interruptible, search_shown
from solver.cli.table import worth_table
from solver.plans import Plan
from solver.report.engine_plans import DENSE, Setting
from solver.report.traffic_steps import Steps, counted, learnt
from solver.report.verdict import verdict
from solver.report.worth import worth
from solver.request import RequestError

DECODE_BATCH = 16


@clear_errors()
def advise_command(
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
            help="A profile's name or the path of its JSON.",
            autocompletion=profile_names,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The profile's model, a folder; without --profile every head is dense."),
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Devices of one tensor-parallel group.")] = 8,
    device_type: flags.DeviceType = "h200",
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Requests: Mooncake's JSON lines, Azure's CSV, or prompt lengths, one a line."
        ),
    ] = None,
    contexts: Annotated[
        str | None,
        typer.Option(help="Instead of --trace: prompt lengths, comma-separated, as many of each."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            help="Instead of --trace: the URL of the planner that has learnt the traffic of "
            "--deployment; its key comes from HPLB_API_KEY."
        ),
    ] = None,
    deployment: Annotated[
        str | None, typer.Option(help="Of --server: whose engines' traffic.")
    ] = None,
    decode_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Sequences that decode together, where a trace has outputs; "
            f"{DECODE_BATCH} unless given.",
        ),
    ] = None,
    budget_loss: flags.BudgetLoss = None,
    slots: flags.Slots = "auto",
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=0.1, help="Seconds for each plan.")
    ] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Say whether HPLB is worth it: what budgets and placement gain of this traffic's time.

    Example: hplb advise -p smollm2-135m --gpus 2 --device-type cpu --contexts 1024,8192
    """
    if profile is None and budget_loss is not None:
        raise RequestError(
            "--budget-loss: needs what a profile knows of the heads (--profile); with --model "
            "alone every head is dense"
        )
    setting = Setting(
        profile=_profile(profile, model),
        gpus=gpus,
        device_type=device_type,
        budget=DENSE if profile is None else {"loss": budget_loss},
        slots=flags.slots(slots) or "auto",
        plan_s=time_limit,
    )
    traffic = _traffic(trace, contexts, server, deployment, decode_batch)
    with search_shown("advising") as show:
        searches = Searches(show, time_limit)
        found = interruptible(
            lambda stop: worth(setting, traffic, searches.begin, stop), searches.tick
        )
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    console.print(worth_table(found))
    for sentence in verdict(found):
        console.print(sentence, highlight=False)


def _profile(name: str | None, model: str | None) -> ModelProfile:
    """The profile, with the shape of its model where that is given, or of the shape alone."""
    if model is None:
        if name is None:
            raise RequestError("give --profile, or --model, or both")
        return load_profile(name)
    alone = unmeasured_profile(model)
    if name is None:
        return alone
    profile = load_profile(name)
    own, its = (each.architecture.attention.model_dump() for each in (profile, alone))
    unlike = [f"{key} {own[key]} is {its[key]} there" for key in own if own[key] != its[key]]
    if unlike:
        raise RequestError(
            f"--profile: {profile.name!r} is of another architecture than --model {model}: "
            f"{', '.join(unlike)}"
        )
    return profile.model_copy(update={"architecture": alone.architecture})


def _traffic(
    trace: Path | None,
    contexts: str | None,
    server: str | None,
    deployment: str | None,
    decode_batch: int | None,
) -> Sequence[Steps]:
    if sum(source is not None for source in (trace, contexts, server)) != 1:
        raise RequestError("give --trace, --contexts or --server, one of them")
    if (server is None) != (deployment is None):
        raise RequestError("--server and --deployment: one needs the other")
    requests = None if trace is None else read_traffic(trace)
    if decode_batch is not None and (requests is None or requests.output_tokens is None):
        raise RequestError("--decode-batch: is for a --trace that says how many tokens were made")
    if server is not None and deployment is not None:
        return _learnt(PlannerClient(server, os.environ.get("HPLB_API_KEY")), deployment)
    if requests is None:
        lengths = whole_numbers("--contexts", contexts or "")
        prompts = [tokens_of(length, "--contexts") for length in lengths]
        requests = Traffic(np.array(prompts, dtype=np.int64), None)
    return counted(requests, decode_batch or DECODE_BATCH)


def _learnt(planner: PlannerClient, name: str) -> Sequence[Steps]:
    """What the engines of a deployment were seen to run, by its planner."""
    with planner:
        view = planner.deployment(name)
        live = planner.find_plan(view.plan_id)
    if not view.traffic or not isinstance(live, Plan):
        raise RequestError(
            f"--deployment: no engine of {name!r} has told of its steps since generation "
            f"{view.generation} is live; serve requests first, or give --trace or --contexts"
        )
    classes = [
        StepClass(each.phase == "prefill", each.context_tokens, each.batch_size, each.share)
        for each in view.traffic
    ]
    # By the rates that plans are made with here: their seconds then have the shares measured.
    phases: tuple[Phase, Phase] = ("prefill", "decode")
    return learnt(live, classes, {of: catalogue_rates(live.device_types, of) for of in phases})
