"""`hplb models`: real models, fetched once and kept."""

import json
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from rich.table import Table

from profiles.cli.console import clear_errors, console, fail
from profiles.cli.flags import AsJson
from profiles.cli.progress import shown, timed
from profiles.fetched import PUBLISHED, PublishedModel, is_here, is_whole

models = typer.Typer(
    no_args_is_help=True,
    help="Real models, fetched once and kept.\n\nExample: hplb models get smollm2-135m",
)


@models.command("get")
@clear_errors()
def get_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="One of `hplb models list`.",
            autocompletion=lambda: list(PUBLISHED),
        ),
    ],
    print_path: Annotated[
        bool, typer.Option("--print-path", help="The folder alone on stdout.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch a model into $HPLB_CACHE, else ~/.cache/hplb; checked, and kept whole or not at all.

    Example: hplb models get smollm2-135m
    """
    model = PUBLISHED.get(name)
    if model is None:
        fail(
            f"{name!r}: is not one of {', '.join(PUBLISHED)}; any folder of transformers works too"
        )
    if not is_whole(model):
        if find_spec("torch") is None or find_spec("transformers") is None:
            fail("hplb models get needs torch and transformers: pip install hplb[executor]")

        # What a model that is here does without.
        from profiles.measuring.fetching import fetch

        with shown("downloading", " MB") as show:
            told = timed(show)
            fetch(model, lambda here, size, what: told(here / 1e6, size / 1e6, what))
    if as_json:
        typer.echo(json.dumps(_facts(model)))
        return
    typer.echo(f"{model.name}: {model.title}, {model.licence}, from {model.source}", err=print_path)
    typer.echo(model.folder)


@models.command("list")
@clear_errors()
def list_command(
    as_json: AsJson = False,
) -> None:
    """The models that can be fetched, and those that are here.

    Example: hplb models list --json
    """
    if as_json:
        typer.echo(json.dumps([_facts(model) for model in PUBLISHED.values()], indent=2))
        return
    table = Table("name", "model", "licence", "download", "here")
    for model in PUBLISHED.values():
        size, here = f"{model.wheel_bytes / 1e6:.0f} MB", "yes" if is_here(model) else "no"
        table.add_row(model.name, model.title, model.licence, size, here)
    console.print(table)


def _facts(model: PublishedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "model": model.title,
        "source": model.source,
        "download_bytes": model.wheel_bytes,
        "licence": model.licence,
        "folder": str(model.folder) if is_here(model) else None,
    }
