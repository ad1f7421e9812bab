"""Progress where nobody sees a bar, and where somebody does."""

from collections.abc import Iterator

import pytest

from profiles.cli import progress
from profiles.cli.progress import EVERY_S, shown


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
