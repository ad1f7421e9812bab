"""The `hplb` command: gathers the commands that each installed part brings."""

import sys
from importlib.metadata import entry_points, version
from typing import Annotated, NoReturn

import typer

from profiles.cli.console import USAGE_ERROR
from profiles.errors import HplbError

GROUP = "hplb.commands"
INTERRUPTED = 130


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hplb {version('hplb')}")
        raise typer.Exit


def root(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Head-parallel load balance: decides which GPU computes which attention head."""


def gather() -> typer.Typer:
    """The root command with every part's commands at the top level.

    A part that needs torch is left out where torch is not installed.
    """
    app = typer.Typer(
        no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, callback=root
    )
    for entry_point in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            part: typer.Typer = entry_point.load()
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("torch", "triton"):
                raise
            continue
        app.registered_commands += part.registered_commands
        app.registered_groups += part.registered_groups
    return app


def run() -> NoReturn:
    """Run the command line: bad input is one line on stderr and exit code 2, Ctrl-C is 130."""
    try:
        gather()()
    except HplbError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(USAGE_ERROR)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)


if __name__ == "__main__":
    run()
