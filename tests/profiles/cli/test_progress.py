"""Progress where nobody sees a bar, and where somebody does."""

from collections.abc import Iterator

import pytest

from profiles.cli import progress
from profiles.cli.progress import EVERY_S, shown, timed


class Clock:
    """Moved by the test alone."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_a_line_every_so_often(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with shown("loading") as show:
        for done in range(5):
            show(done, 4, f"task {done}")
            clock.now += 0.6 * EVERY_S
        show(4, 4, "task 4")
    assert capsys.readouterr() == (
        "",
        "0/4 task 0, 0:00:00 so far\n2/4 task 2, 0:00:12 so far\n4/4 task 4, 0:00:24 so far\n",
    )


def test_a_terminal_has_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with shown("loading", " MB") as show:
        show(31, 93, "downloading, about 0:01:15 left")
    out, err = capsys.readouterr()
    assert out == ""
    for words in ("loading", "31/93 MB", "downloading", "about 0:01:15 left"):
        assert words in err


def test_the_time_left_is_told_where_the_work_does_not(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with shown("loading") as show:
        told = timed(show)
        for done in range(4):
            told(done, 3, "prompts")
            clock.now += EVERY_S
    assert capsys.readouterr().err.splitlines() == [
        "0/3 prompts, 0:00:00 so far",
        "1/3 prompts, about 0:00:20 left, 0:00:10 so far",
        "2/3 prompts, about 0:00:10 left, 0:00:20 so far",
        "3/3 prompts, 0:00:30 so far",
    ]


def test_what_is_quick_passes_in_silence_without_a_terminal(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with shown("planning", quiet_s=EVERY_S) as show:
        show(0, 2, "first")
        clock.now += 0.9 * EVERY_S
        show(1, 2, "second")
        clock.now += 0.2 * EVERY_S
        show(1, 2, "third")
    assert capsys.readouterr().err == "1/2 third, 0:00:11 so far\n"
