"""The `hplb` command: gathers the commands that each installed part brings."""

import errno
import io
import os
import sys
from contextlib import suppress
from importlib.metadata import entry_points, version
from typing import Annotated, NoReturn

import typer

from profiles.cli.console import USAGE_ERROR
from profiles.errors import HplbError

GROUP = "hplb.commands"
NO_OUTPUT = 1
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
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
    """Head-parallel load balance: decides which GPU computes which attention head.

    Example: hplb plan --gpus 8 --context 131072
    """


def gather() -> typer.Typer:
    """The root command with every part's commands at the top level.

    A part that needs torch is left out where torch is not installed.
    """
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, callback=root)
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
    """Run the command line: bad input is one line on stderr and exit code 2, Ctrl-C is 130.

    A character that standard output's encoding lacks is replaced; where nothing can be written to
    it any more, one line says so and the exit code is 1.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        try:
            gather()()
        finally:
            # There is none where the caller has closed it.
            if sys.stdout:
                sys.stdout.flush()
    except HplbError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(USAGE_ERROR)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:
        # Every file that is opened by name has its own error.
        if error.filename is not None or error.errno not in UNWRITABLE:
            raise
        output = _output()
        # Or the interpreter would try once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with suppress(OSError):
            typer.echo(f"error: {output}: cannot be written: {error.strerror}", err=True)
        sys.exit(NO_OUTPUT)
    sys.exit(0)


def _output() -> str:
    """Where standard output goes, as far as the system tells."""
    try:
        return os.readlink("/proc/self/fd/1")
    except OSError:
        return "standard output"


if __name__ == "__main__":
    run()
