"""Rows: one policy's budgets on one document, in a journal or from a report of them."""

import json
from dataclasses import dataclass
from pathlib import Path

from executor.evaluation.journal import Journal

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


def restore(journal: Journal[Row], report: Path, belongs_to: dict[str, object]) -> None:
    """Take the rows of a report on the same model and selection, where there are none yet."""
    if journal.rows or not report.exists():
        return
    found = json.loads(report.read_text(encoding="utf-8"))
    if found.get("belongs_to") == belongs_to:
        for values in found["rows"]:
            journal.add(Row(**dict(zip(found["columns"], values, strict=True))))
