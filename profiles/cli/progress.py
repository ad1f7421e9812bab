"""Progress on stderr: a bar on a terminal, and anywhere else a line every so often."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from profiles.time_left import Show, TimeLeft

EVERY_S = 10.0
"""Seconds between two lines, at least."""


@contextmanager
def shown(first: str, unit: str = "", *, quiet_s: float = 0.0) -> Iterator[Show]:
    """Show progress for the `with` block; the bar begins with `first`, and leaves nothing behind.

    `unit` follows the numbers. Where there is no terminal nothing is said in the first `quiet_s`.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(unit, quiet_s)
        return
    columns = (BarColumn(), TextColumn("{task.fields[done]} {task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task(first, total=None, done="")

        def show(done: float, total: float, what: str) -> None:
            counted = _counted(done, total, unit)
            bar.update(task, completed=done, total=total, description=what, done=counted)

        yield show


def timed(show: Show) -> Show:
    """The same with the time left, for work that says nothing of it: as much a second as so far."""
    began = time.monotonic()

    def told(done: float, total: float, what: str) -> None:
        left = TimeLeft(total)
        if done:
            left.done(done, time.monotonic() - began)
        show(done, total, left.after(what) if done < total else what)

    return told


class _Lines:
    """The first report, one in EVERY_S seconds, and the last."""

    def __init__(self, unit: str, quiet_s: float) -> None:
        self._unit = unit
        self._quiet_s = quiet_s
        self._began = time.monotonic()
        self._last = -EVERY_S
        self._said: tuple[float, str] | None = None

    def __call__(self, done: float, total: float, what: str) -> None:
        so_far = time.monotonic() - self._began
        ended = done >= total and self._said != (done, what)
        if so_far < self._quiet_s or (not ended and so_far - self._last < EVERY_S):
            return
        self._last, self._said = so_far, (done, what)
        clock = timedelta(seconds=round(so_far))
        typer.echo(f"{_counted(done, total, self._unit)} {what}, {clock} so far", err=True)


def _counted(done: float, total: float, unit: str) -> str:
    return f"{done:.0f}/{total:.0f}{unit}"
