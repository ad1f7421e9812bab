"""What was measured, sample by sample, and the file that lets an interrupted run go on."""

import json
import os
from collections.abc import Callable, Hashable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from executor.errors import EvaluationError

TEXT = "text"
"""The task of perplexity: `value` is the mean negative log-likelihood in nats."""

Key = tuple[int, str, float | None, str, str, int]


@dataclass(frozen=True, slots=True)
class Row:
    """One method on one sample. `density` is what was asked for, None for dense attention;
    `setup` names the budgets, so that no row is taken for one of others."""

    context: int
    method: str
    density: float | None
    setup: str
    task: str
    seed: int
    value: float
    tiles: int
    dense_tiles: int

    @property
    def key(self) -> Key:
        return self.context, self.method, self.density, self.setup, self.task, self.seed


class Keyed(Protocol):
    """A dataclass of JSON's values; rows of equal keys say the same."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def key(self) -> Hashable: ...


R = TypeVar("R", bound=Keyed)


class Journal(Generic[R]):
    """Rows as JSON lines behind a line that says what they belong to; every row is kept at once."""

    def __init__(self, path: Path, rows: Iterable[R]) -> None:
        self.path = path
        self.rows: dict[Hashable, R] = {row.key: row for row in rows}

    @classmethod
    def open(cls, path: Path, belongs_to: dict[str, object], row: Callable[..., R]) -> Self:
        """What an earlier run left at `path`, or an empty one; `row` is the rows' class.

        A last line that was cut short is dropped. Raises EvaluationError where the file belongs to
        another evaluation, or is none.
        """
        head = json.dumps({"belongs_to": belongs_to}, sort_keys=True)
        try:
            if not path.exists():
                path.write_text(head + "\n", encoding="utf-8")
                return cls(path, [])
            text = path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                os.truncate(path, len(whole.encode()))
        except (OSError, UnicodeDecodeError) as error:
            raise EvaluationError(f"{path}: cannot be used to resume: {error}") from None
        first, *lines = whole.removesuffix("\n").split("\n")
        if first != head:
            raise EvaluationError(
                f"{path}: belongs to an evaluation with another model, profile, samples or "
                "options; move it away, or write the results elsewhere"
            )
        try:
            return cls(path, [row(**json.loads(line)) for line in lines])
        except (ValueError, TypeError) as error:
            raise EvaluationError(f"{path}: a line is no row of an evaluation: {error}") from None

    def add(self, row: R) -> None:
        """Keep a row. Raises EvaluationError where it cannot be written."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
        except OSError as error:
            raise EvaluationError(f"{self.path}: cannot be written: {error.strerror}") from None
        self.rows[row.key] = row
