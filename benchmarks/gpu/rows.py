"""Rows and the files they lie in, as both a section's process and its parent know them."""

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Sections = dict[str, Any]
"""Documents of sections by name, each with its `rows`."""
EARLIER = "earlier"
"""Folder in the run's folder: what earlier runs found."""
SHARED = "shared"
"""Folder in either: rows that several sections need, measured once."""


def has_figures(row: Row) -> bool:
    """Whether a row says what was measured, and not why nothing was."""
    return not row.keys() & {"error", "skipped", "out_of_time"}


def read(path: Path) -> Row:
    """The file's document, empty where there is none."""
    found: Row = json.loads(path.read_text()) if path.exists() else {}
    return found


def replace(path: Path, found: Row) -> None:
    """Write `path` whole or not at all."""
    write(path, json.dumps(found))


def write(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".part")
    unfinished.write_text(text)
    unfinished.replace(path)
