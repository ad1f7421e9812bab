"""`hplb models`: real models, fetched once and kept."""

import json
import time
from importlib.util import find_spec
from typing import Annotated

import typer
from rich.table import Table

from profiles.cli.console import clear_errors, console, fail
from profiles.cli.progress import shown
from profiles.fetched import PUBLISHED, is_here, is_whole
from profiles.time_left import TimeLeft

models = typer.Typer(no_args_is_help=True, help="Real models, fetched once and kept.")


@models.command("get")
@clear_errors()
def get_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One of `hplb models list`.")],
    print_path: Annotated[
        bool, typer.Option("--print-path", help="The folder alone on stdout.")
    ] = False,
) -> None:
    """Fetch a model into $HPLB_CACHE, else ~/.cache/hplb; checked, and kept whole or not at all."""
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
            began = time.monotonic()

            def progress(here: int, size: int, what: str) -> None:
                left = TimeLeft(size)
                if here:
                    left.done(here, time.monotonic() - began)
                show(here / 1e6, size / 1e6, left.after(what) if here < size else what)

            fetch(model, progress)
    typer.echo(f"{model.name}: {model.title}, {model.licence}, from {model.source}", err=print_path)
    typer.echo(model.folder)


@models.command("list")
@clear_errors()
def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The models that can be fetched, and those that are here."""
    rows = [
        {
            "name": model.name,
            "model": model.title,
            "source": model.source,
            "download_bytes": model.wheel_bytes,
            "licence": model.licence,
            "folder": str(model.folder) if is_here(model) else None,
        }
        for model in PUBLISHED.values()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("name", "model", "licence", "download", "here")
    for model in PUBLISHED.values():
        size, here = f"{model.wheel_bytes / 1e6:.0f} MB", "yes" if is_here(model) else "no"
        table.add_row(model.name, model.title, model.licence, size, here)
    console.print(table)
