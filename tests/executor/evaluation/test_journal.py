"""The journal that an interrupted run goes on from."""

from pathlib import Path

import pytest

from executor.errors import EvaluationError
from executor.evaluation.journal import Journal, Row

ROWS = [Row(256, "uniform", 0.5, "a1", "vt", seed, 1 / 3, 5, 10) for seed in range(3)]
BELONGS: dict[str, object] = {"weights_sha256": "x"}


def written(path: Path) -> Journal[Row]:
    journal = Journal.open(path, BELONGS, Row)
    for row in ROWS:
        journal.add(row)
    return journal


def test_rows_come_back_and_a_line_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    written(path)
    assert list(Journal.open(path, BELONGS, Row).rows.values()) == ROWS
    text = path.read_text()
    path.write_text(text[:-20])
    cut = Journal.open(path, BELONGS, Row)
    assert list(cut.rows.values()) == ROWS[:2]
    cut.add(ROWS[2])
    assert path.read_text() == text


def test_a_journal_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    written(path)
    with pytest.raises(EvaluationError, match="belongs to an evaluation with another"):
        Journal.open(path, {"weights_sha256": "y"}, Row)
    for content in ('{"rows": 1}\n', "", "\n"):
        path.write_text(content)
        with pytest.raises(EvaluationError, match="belongs to"):
            Journal.open(path, BELONGS, Row)
    written_again = tmp_path / "again"
    written(written_again)
    with written_again.open("a") as file:
        file.write('{"context": 1}\n')
    with pytest.raises(EvaluationError, match="no row"):
        Journal.open(written_again, BELONGS, Row)
    with pytest.raises(EvaluationError, match="cannot be used"):
        Journal.open(tmp_path, BELONGS, Row)


def test_a_row_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    journal = Journal.open(folder / "rows", BELONGS, Row)
    (folder / "rows").unlink()
    folder.rmdir()
    with pytest.raises(EvaluationError, match="rows: cannot be written"):
        journal.add(ROWS[0])
    assert not journal.rows
