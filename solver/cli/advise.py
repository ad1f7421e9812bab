"""`hplb advise`: whether HPLB is worth it for a model, devices and traffic."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from profiles.catalogue import load_profile
from profiles.cli.console import clear_errors, console
from profiles.cli.flags import AsJson, profile_names, whole_numbers
from profiles.traffic import Traffic, read_traffic
from profiles.unmeasured import unmeasured_profile
from solver.cli import flags
from solver.cli.progress import Searches, interruptible, search_shown
from solver.cli.table import worth_table
from solver.report.worth import PLANS_A_STEP, Setting, verdict, worth
from solver.request import RequestError


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
        typer.Option(help="Without a profile: a model's folder; every head is dense then."),
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
    decode_batch: Annotated[
        int, typer.Option(min=1, help="Sequences that decode together, where outputs are known.")
    ] = 16,
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
    if (profile is None) == (model is None):
        raise RequestError("give --profile or --model, one of them")
    shape = unmeasured_profile(model) if model is not None else load_profile(profile or "")
    budget = {"policy": "dense"} if model is not None else {"loss": budget_loss}
    setting = Setting(
        profile=shape,
        gpus=gpus,
        device_type=device_type,
        budget=budget,
        slots=flags.slots(slots) or "auto",
        decode_batch=decode_batch,
        plan_s=time_limit,
    )
    traffic = _traffic(trace, contexts)
    with search_shown("advising") as show:
        searches = Searches(show, PLANS_A_STEP * time_limit)
        found = interruptible(
            lambda stop: worth(setting, traffic, searches.begin, stop), searches.tick
        )
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    console.print(worth_table(found))
    for sentence in verdict(found):
        console.print(sentence, highlight=False)


def _traffic(trace: Path | None, contexts: str | None) -> Traffic:
    if (trace is None) == (contexts is None):
        raise RequestError("give --trace or --contexts, one of them")
    if trace is not None:
        return read_traffic(trace)
    lengths = whole_numbers("--contexts", contexts or "")
    if min(lengths) < 1:
        raise RequestError(f"--contexts: {contexts!r} must be lengths of at least 1 token")
    return Traffic(np.array(lengths, dtype=np.int64), None)
