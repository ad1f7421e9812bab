"""`hplb serve`, `hplb backup`, `hplb restore` and `hplb demo`, and where `hplb keys` and
`hplb advise` hang."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from api.advise_cli import advise_command
from api.demo.findings import figures, report
from api.demo.fitting import MOST_LAYERS
from api.demo.round_trip import ROUNDS, DemoOptions, run_demo
from api.demo.usual_model import usual_model
from api.keys_cli import app as keys
from api.opening import DatabaseUrl, opened, settings_with
from api.settings import told_settings
from api.store.database import without_password
from profiles.catalogue import load_profile
from profiles.cli.console import clear_errors, console, fail
from profiles.cli.flags import AsJson, model_names, profile_names
from profiles.cli.progress import EVERY_S, shown, timed

app = typer.Typer(no_args_is_help=True)
app.add_typer(keys, name="keys")
app.command("advise")(advise_command)


@app.callback()
def _group() -> None:
    """The service."""


@app.command("serve")
@clear_errors()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    database_url: DatabaseUrl = None,
) -> None:
    """Serve plans over HTTP. Any address but loopback needs HPLB_API_KEY or `hplb keys create`.

    Example: hplb serve --port 8000 --database-url sqlite:///plans.db
    """
    # FastAPI and all routes take a second to load: other commands do without.
    from api.server import serve as serve_until_stopped
    from api.server import stop_on_terminate

    settings = settings_with(database_url)
    stop_on_terminate()
    database = without_password(settings.database_url)
    serve_until_stopped(
        host,
        port,
        settings,
        lambda url: typer.echo(f"hplb serves {url} (docs: {url}/docs, database: {database})"),
    )


@app.command("backup")
@clear_errors()
def backup(
    file: Annotated[Path, typer.Argument(help="Written whole or not at all; gzipped JSON lines.")],
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Copy a database to a file, while planners may go on using it.

    Example: hplb backup plans.jsonl.gz
    """
    from api.store.backup import back_up  # slow to import: Alembic

    with opened(database_url) as database, shown("reading", " rows", quiet_s=EVERY_S) as show:
        counts = back_up(database, file, timed(show))
    _say(counts, as_json)


@app.command("restore")
@clear_errors()
def restore(
    file: Annotated[Path, typer.Argument(help="A backup, of this or an earlier version.")],
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup into an empty database, SQLite or PostgreSQL, whichever it came from.

    Example: hplb restore plans.jsonl.gz --database-url sqlite:///new.db
    """
    from api.store.backup import restore as restore_from

    with opened(database_url) as database, shown("reading", " MB", quiet_s=EVERY_S) as show:
        counts = restore_from(database, file, timed(show))
    _say(counts, as_json)


def _say(counts: Counter[str], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"rows": counts.total(), "tables": counts}))
        return
    told = ", ".join(f"{count} {table}" for table, count in sorted(counts.items()))
    typer.echo(f"{counts.total()} rows{': ' if told else ''}{told}")


@app.command("settings")
def settings(
    as_json: AsJson = False,
) -> None:
    """Show every setting of the service: its variable, type, default and meaning.

    Example: hplb settings --json
    """
    told = told_settings()
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in told]))
        return
    for each in told:
        typer.echo(f"{each.variable} ({each.kind}; {each.default or 'unset'})")
        typer.echo(f"    {each.meaning}")


@app.command("demo")
@clear_errors()
def demo(
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
            help="A profile's name or the path of its JSON; SmolLM2-135M's, with its model.",
            autocompletion=profile_names,
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The profile's model, a folder or a name: its activations are run.",
            autocompletion=model_names,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="What it reads: JSON lines, a text or a folder; the library's docstrings."
        ),
    ] = None,
    devices: Annotated[int, typer.Option(min=1, max=64, help="Devices to play.")] = 4,
    context: Annotated[
        int | None,
        typer.Option(
            min=64,
            help="Tokens of the prompt that is run; the longest measured that fits three minutes.",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(min=1, help=f"Layers to run; as many as fit, at most {MOST_LAYERS}."),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=2, max=50, help="Rounds to measure each after refitting.")
    ] = ROUNDS,
    as_json: AsJson = False,
) -> None:
    """Go once round the loop on this machine: plan, run, measure, refit, plan better.

    Example: hplb demo --devices 4 --json
    """
    from api.server import stop_on_terminate

    if data is not None and model is None:
        fail("--data: needs --model, which reads it")
    if profile is None and model is not None:
        fail("--model: needs --profile, what was measured on this model")
    say = Console(stderr=True) if as_json else console
    stop_on_terminate()
    if profile is None:
        model, profile = usual_model(say)
    options = DemoOptions(
        profile=load_profile(profile),
        devices=devices,
        nodes=min(2, devices),
        context_tokens=context,
        layers=layers,
        rounds=rounds,
        model=model,
        data=data,
    )
    found = figures(options, run_demo(options, say))
    if as_json:
        typer.echo(json.dumps(found))
    else:
        report(found, say)
