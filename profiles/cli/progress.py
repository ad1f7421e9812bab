"""Progress on stderr: a bar on a terminal, and anywhere else a line every so often."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

EVERY_S = 10.0
"""Seconds between two lines, at least."""
Show = Callable[[float, float, str, float | None], None]
"""Called with what is done, of how much, what comes next, and the seconds left where known."""


@contextmanager
def shown(first: str, unit: str = "") -> Iterator[Show]:
    """Show progress for the `with` block; the bar begins with `first`, and leaves nothing behind.

    `unit` follows the numbers.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(unit)
        return
    columns = (BarColumn(), TextColumn("{task.fields[done]} {task.description}"))
    left = TextColumn("{task.fields[left]}")
    with Progress(*columns, TimeElapsedColumn(), left, console=console, transient=True) as bar:
        task = bar.add_task(first, total=None, done="", left="")

        def show(done: float, total: float, what: str, left_s: float | None) -> None:
            bar.update(
                task,
                completed=done,
                total=total,
                description=what,
                done=_counted(done, total, unit),
                left=_left(left_s),
            )

        yield show


class _Lines:
    """The first report, one in EVERY_S seconds, and the last."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._began = time.monotonic()
        self._last = -EVERY_S
        self._said: tuple[float, str] | None = None

    def __call__(self, done: float, total: float, what: str, left_s: float | None) -> None:
        so_far = time.monotonic() - self._began
        ended = done >= total and self._said != (done, what)
        if not ended and so_far - self._last < EVERY_S:
            return
        self._last, self._said = so_far, (done, what)
        words = (f"{_counted(done, total, self._unit)} {what}", f"{_clock(so_far)} so far")
        typer.echo(", ".join([*words, *filter(None, [_left(left_s)])]), err=True)


def _counted(done: float, total: float, unit: str) -> str:
    return f"{done:.0f}/{total:.0f}{unit}"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"about {_clock(seconds)} left"


def _clock(seconds: float) -> str:
    """`0:01:32`."""
    return str(timedelta(seconds=round(seconds)))
