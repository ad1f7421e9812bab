"""Progress on stderr: a bar on a terminal, and anywhere else a line every so often."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

EVERY_S = 10.0
"""Seconds between lines, at least."""
Show = Callable[[str, float, str, float | None], None]
"""Called with what is done in words (`12/96`), the share of it, what is being done now, and the
seconds that are left where anybody knows."""


@contextmanager
def shown(first: str) -> Iterator[Show]:
    """Show progress for the `with` block, beginning with the words `first`; nothing stays."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (BarColumn(), TextColumn("{task.fields[done]} {task.description}"))
    left = TextColumn("{task.fields[left]}")
    with Progress(*columns, TimeElapsedColumn(), left, console=console, transient=True) as bar:
        task = bar.add_task(first, total=None, done="", left="")

        def show(done: str, share: float, what: str, left_s: float | None) -> None:
            bar.update(
                task, completed=share, total=1.0, description=what, done=done, left=_left(left_s)
            )

        yield show


class _Lines:
    """The first report, the last, and one in EVERY_S seconds between them."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._last = -EVERY_S

    def __call__(self, done: str, share: float, what: str, left_s: float | None) -> None:
        so_far = time.monotonic() - self._began
        if share < 1 and so_far - self._last < EVERY_S:
            return
        self._last = so_far
        words = (f"{done} {what}", f"{_clock(so_far)} so far", _left(left_s))
        typer.echo(", ".join(word for word in words if word), err=True)


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"about {_clock(seconds)} left"


def _clock(seconds: float) -> str:
    """`0:01:32`."""
    return str(timedelta(seconds=round(seconds)))
