"""`hplb serve` and `hplb demo`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from api.demo.findings import report
from api.demo.round_trip import DemoOptions, run_demo
from api.server import serve as serve_until_stopped
from api.server import stop_on_terminate
from api.settings import Settings
from api.store.database import without_password
from profiles.catalogue import (
    DEFAULT_PROFILE,
    REFERENCE_MODEL,
    REFERENCE_PROFILE,
    REFERENCE_PROMPTS,
    load_profile,
)
from profiles.cli.console import clear_errors, console, fail
from profiles.errors import describe
from profiles.heads import CurvesForm
from profiles.model import ModelProfile

app = typer.Typer(no_args_is_help=True)
USUAL_CONTEXT = 4096


@app.callback()
def _group() -> None:
    """The service."""


@app.command("serve")
@clear_errors()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    database_url: Annotated[
        str | None,
        typer.Option(help="SQLAlchemy URL; HPLB_DATABASE_URL, else ./hplb.db.", show_default=False),
    ] = None,
) -> None:
    """Serve plans over HTTP. Any address but loopback needs HPLB_API_KEY."""
    try:
        settings = Settings() if database_url is None else Settings(database_url=database_url)
    except ValidationError as error:
        fail(f"settings (HPLB_...): {describe(error)}")
    stop_on_terminate()
    database = without_password(settings.database_url)
    serve_until_stopped(
        host,
        port,
        settings,
        lambda url: typer.echo(f"hplb serves {url} (docs: {url}/docs, database: {database})"),
    )


@app.command("demo")
@clear_errors()
def demo(
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
            help="A profile's name or the path of its JSON; the reference model's.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The profile's model, a folder or a name: its activations are run."),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="What it reads: JSON lines, a text, or a folder; needs --model."),
    ] = None,
    devices: Annotated[int, typer.Option(min=1, max=64, help="Devices to play.")] = 4,
    context: Annotated[
        int | None,
        typer.Option(
            min=64,
            help="Tokens of the prompt that is run; 4096, or the longest measured.",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(min=1, help="Layers to run; as many as fit, at most 4.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=2, max=50, help="Rounds to measure each.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Go once round the loop on this machine: plan, run, measure, refit, plan better."""
    if (model is None) != (prompts is None):
        fail("--model and --prompts: the one needs the other")
    if profile is None and model is not None:
        fail("--model: needs --profile, what was measured on this model")
    if profile is None:
        model, prompts = REFERENCE_MODEL, REFERENCE_PROMPTS
    chosen = load_profile(REFERENCE_PROFILE if profile is None else profile)
    options = DemoOptions(
        profile=chosen,
        predicted=chosen if profile is not None else load_profile(DEFAULT_PROFILE),
        devices=devices,
        nodes=min(2, devices),
        context_tokens=context or _usual_context(chosen),
        layers=layers,
        rounds=rounds,
        model=model,
        prompts=prompts,
    )
    say = Console(stderr=True) if as_json else console
    stop_on_terminate()
    result = run_demo(options, say)
    if as_json:
        typer.echo(json.dumps(result.to_json()))
    else:
        report(options, result, say)


def _usual_context(profile: ModelProfile) -> int:
    """What the demo runs unless told: no more than a measured profile knows of."""
    if profile.measurement is None or not isinstance(profile.heads, CurvesForm):
        return USUAL_CONTEXT
    return min(USUAL_CONTEXT, profile.heads.context_tokens[-1])
