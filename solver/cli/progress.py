"""A search on the command line: a line that shows how far it is, and Ctrl-C that ends it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from solver.solution import Progress

T = TypeVar("T")


def search_bar() -> Bar:
    """A progress line on stderr that leaves nothing behind, so that stdout stays clean."""
    return Bar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def show_progress(bar: Bar, task: TaskID) -> Callable[[Progress], None]:
    """Show how many layers are settled behind the task's own words."""

    def show(progress: Progress) -> None:
        settled = f"{progress.settled}/{progress.layers} layers settled"
        bar.update(task, detail=f"{settled}, gap {100 * progress.gap:.2f} %")

    return show


def interruptible(work: Callable[[Event], T]) -> T:
    """Run `work` beside the main thread, which alone hears Ctrl-C and then cancels the search."""
    cancelled = Event()
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(work, cancelled)
        try:
            return future.result()
        except KeyboardInterrupt:
            cancelled.set()
            raise
