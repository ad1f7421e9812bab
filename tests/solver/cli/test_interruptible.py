"""Ctrl-C at the states of a search in which an exception would be lost."""

import os
import signal
from collections.abc import Iterator
from threading import Event, Thread, get_ident

import pytest

from solver.cli.progress import interruptible

pytestmark = pytest.mark.timeout(120)

BOUND_S = 20.0


@pytest.fixture(autouse=True)
def hearing() -> Iterator[None]:
    """What a shell starts in the background is born deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Search:
    """Would not end by itself; bounded, so that one that is lost does not hold up the exit."""

    cancelled: bool | None = None

    def run(self, cancelled: Event) -> None:
        self.cancelled = cancelled.wait(BOUND_S)


def test_while_the_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread runs, and its pool does not know it yet: nothing else would wait for it."""
    started = Thread.start

    def start(thread: Thread) -> None:
        started(thread)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Thread, "start", start)
    search = Search()
    with pytest.raises(KeyboardInterrupt):
        interruptible(search.run)
    assert search.cancelled


def test_a_signal_that_another_thread_is_given() -> None:
    """It does not wake the main thread, which looks by itself."""
    search = Search()

    def work(cancelled: Event) -> None:
        signal.pthread_kill(get_ident(), signal.SIGINT)
        search.run(cancelled)

    with pytest.raises(KeyboardInterrupt):
        interruptible(work)
    assert search.cancelled


def test_what_failed_is_told_and_ctrl_c_is_as_before() -> None:
    def work(_: Event) -> None:
        raise ValueError("no such plan")

    with pytest.raises(ValueError, match="no such plan"):
        interruptible(work)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert interruptible(lambda _: 7) == 7


def test_a_process_deaf_to_ctrl_c_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert interruptible(lambda _: os.kill(os.getpid(), signal.SIGINT)) is None
