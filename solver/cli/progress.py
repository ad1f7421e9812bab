"""A search on the command line: a line that shows how far it is, and Ctrl-C that ends it."""

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from solver.solution import Progress

T = TypeVar("T")

HEARD_WITHIN_S = 0.1


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
    """Run `work` beside the main thread, which hears Ctrl-C and then cancels the search.

    The first Ctrl-C sets the event alone: an exception could come between the worker's start and
    whatever would catch it, and the search, never cancelled, would hold up the exit. The second
    ends the process at once. Raises KeyboardInterrupt once a cancelled search has ended.
    """
    cancelled = Event()

    def cancel(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        cancelled.set()

    before = signal.getsignal(signal.SIGINT)
    # What a shell starts in the background is born deaf to Ctrl-C, and stays so.
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, cancel)
    try:
        with ThreadPoolExecutor(max_workers=1) as pool:
            future = pool.submit(work, cancelled)
            # Python hears a signal in its main thread alone, which one that another thread was
            # given does not wake.
            while not wait([future], HEARD_WITHIN_S).done:
                pass
    finally:
        signal.signal(signal.SIGINT, before)
    if cancelled.is_set():
        raise KeyboardInterrupt
    return future.result()
