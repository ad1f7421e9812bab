"""Rows: one policy's budgets on one document, each on the disk as soon as it is there."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

Key = tuple[int, str, str, float, str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """`nats`: the mean loss of the document's last tokens; `pairs`: of dense attention's.

    `size` is "64x16", query rows x keys; `share` what was asked for, 1 for dense attention; `setup`
    names the budgets, so that no row is taken for one of others.
    """

    context: int
    size: str
    policy: str
    share: float
    setup: str
    document: str
    kind: str
    nats: float
    pairs: float
    seconds: float

    @property
    def key(self) -> Key:
        return self.context, self.size, self.policy, self.share, self.setup, self.document


class Rows:
    """What was measured so far, in a file that grows by a line with every row."""

    def __init__(self, path: Path, belongs_to: dict[str, object]) -> None:
        """Go on with the file, or begin it. SystemExit where it belongs to another model."""
        self.path = path
        self.belongs_to = belongs_to
        self.rows: dict[Key, Row] = {}
        head = json.dumps({"belongs_to": belongs_to}, sort_keys=True)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(head + "\n", encoding="utf-8")
            return
        first, *lines = path.read_text(encoding="utf-8").split("\n")
        if first != head:
            raise SystemExit(f"{path}: belongs to another run: {first}; give another --rows")
        if lines and lines[-1]:  # cut short while it was written
            os.truncate(path, path.stat().st_size - len(lines.pop().encode()))
        for line in lines:
            if line:
                row = Row(**json.loads(line))
                self.rows[row.key] = row

    def restore(self, report: Path) -> None:
        """Take the rows of a report on the same model and selection, where there are none yet."""
        if self.rows or not report.exists():
            return
        found = json.loads(report.read_text(encoding="utf-8"))
        if found.get("belongs_to") == self.belongs_to:
            for values in found["rows"]:
                self.add(Row(**dict(zip(found["columns"], values, strict=True))))

    def add(self, row: Row) -> None:
        """Keep a row."""
        self.rows[row.key] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
