"""Rows and the files they lie in, as both a section's process and its parent know them."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Sections = dict[str, Any]
"""Documents of sections by name, each with its `rows`."""
EARLIER = "earlier"
"""Folder in the run's folder: what earlier runs found."""
SHARED = "shared"
"""Folder in either: rows that several sections need, measured once."""
BROKEN_DEVICE = 3
"""Exit code of a process that has written its row and whose device answers no more."""


def has_figures(row: Row) -> bool:
    """Whether a row says what was measured, and not why nothing was."""
    return not row.keys() & {"error", "skipped", "out_of_time"}


def document(folder: Path, name: str) -> Row:
    """What a section's files say of it, its `rows` among it; empty where it has not begun."""
    found = read(folder / f"{name}.json")
    return found | {"rows": _rows(folder / f"{name}.rows")} if found else {}


def append(folder: Path, name: str, row: Row) -> None:
    """Write down one more row: a section of hundreds is not written anew for each."""
    with (folder / f"{name}.rows").open("a") as file:
        file.write(f"\n{json.dumps(row)}")


def lay(folder: Path, found: Row) -> None:
    """Write a section's whole document."""
    name = found["section"]
    for row in found["rows"]:
        append(folder, name, row)
    replace(folder / f"{name}.json", {key: x for key, x in found.items() if key != "rows"})


def _rows(path: Path) -> list[Row]:
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        # A process may have been ended within a row.
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def read(path: Path) -> Row:
    """The file's object, empty where there is no file."""
    found: Row = json.loads(path.read_text()) if path.exists() else {}
    return found


def replace(path: Path, found: Row) -> None:
    """Write `path` whole or not at all."""
    write(path, json.dumps(found))


def write(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".part")
    unfinished.write_text(text)
    unfinished.replace(path)
