"""`hplb serve` and `hplb demo`."""

import json
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from api.demo import DemoOptions, run_demo
from api.demo_report import report
from api.serving import serve as serve_until_stopped
from api.serving import stop_on_terminate
from api.settings import Settings
from profiles.console import clear_errors, console, fail
from profiles.library import DEFAULT_PROFILE, resolve_profile
from profiles.model import describe

app = typer.Typer(no_args_is_help=True)


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
    try:
        database = make_url(settings.database_url).render_as_string(hide_password=True)
    except ArgumentError as error:
        fail(f"database URL is not usable: {error}")
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
        str, typer.Option("--profile", "-p", help="A profile's name or the path of its JSON.")
    ] = DEFAULT_PROFILE,
    devices: Annotated[int, typer.Option(min=1, max=64, help="Devices to play.")] = 4,
    context: Annotated[int, typer.Option(min=64, help="Tokens of the prompt that is run.")] = 4096,
    layers: Annotated[
        int | None, typer.Option(min=1, help="Layers to run; as many as fit, at most 4.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=2, max=50, help="Rounds to measure each.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Go once round the loop on this machine: plan, run, measure, refit, plan better."""
    options = DemoOptions(
        profile=resolve_profile(profile),
        devices=devices,
        nodes=min(2, devices),
        context_tokens=context,
        layers=layers,
        rounds=rounds,
    )
    say = Console(stderr=True) if as_json else console
    stop_on_terminate()
    result = run_demo(options, say)
    if as_json:
        typer.echo(json.dumps(result.to_json()))
    else:
        report(options, result, say)
