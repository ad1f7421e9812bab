"""What every part's command line shares: where results go, and how bad input is reported."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console

from profiles.errors import HplbError

USAGE_ERROR = 2

console = Console()
"""Standard output; looked up at each print, so that redirection works."""


def fail(message: str) -> NoReturn:
    """End the command with `error: message` as one line on stderr and exit code 2."""
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    raise typer.Exit(USAGE_ERROR)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Report an HplbError by `fail`; a `with` block, or `@clear_errors()` below a command."""
    try:
        yield
    except HplbError as error:
        fail(str(error))
