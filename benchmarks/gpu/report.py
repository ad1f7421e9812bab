"""The results file: everything found so far, rewritten while it is found."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.rows import SHARED, Row, Sections, document, read, write

WRITE_S = 1.0
"""Between two writings: a file of thousands of rows takes a while."""


class Report:
    """`head`, what sections found and what they share, in one file at `path`.

    `folder` is the run's, where every section has its own file; `carried` are the documents of
    earlier runs (`earlier.py`). A row a line.
    """

    def __init__(self, path: Path, folder: Path, head: Row, carried: Sections) -> None:
        self.path, self.folder, self.head, self._carried = path, folder, head, carried
        self._ended: dict[str, str] = {}
        self._written = 0.0

    def sections(self) -> Sections:
        """Documents by name: this run's, and rows of earlier ones that it has no other for."""
        files = sorted(self.folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
        found = {file.stem: document(self.folder, file.stem) for file in files}
        for name, ended in self._ended.items():
            fresh = {"section": name, "complete": False, "rows": []}
            found[name] = found.get(name, fresh) | {"ended": ended}
        for name, earlier in self._carried.items():
            if name not in found:
                found[name] = earlier
                continue
            cases = {row["case"] for row in found[name]["rows"]}
            found[name]["rows"] += [row for row in earlier["rows"] if row["case"] not in cases]
        return found

    def close(self, wanted: Sequence[str]) -> None:
        """Say how each of the `wanted` sections ended, and write for the last time."""
        for name in wanted:
            self._ended[name] = _ending(document(self.folder, name))
        self.write()

    def changed(self) -> None:
        """Write where that is due."""
        if time.monotonic() - self._written > WRITE_S:
            self.write()

    def write(self) -> None:
        shared = {file.stem: read(file) for file in sorted(self.folder.glob(f"**/{SHARED}/*.json"))}
        write(self.path, text(self.head | {"shared": shared}, self.sections()))
        self._written = time.monotonic()


def _ending(found: Row) -> str:
    if not found:
        return "not run"
    if found["complete"]:
        return "finished"
    return "failed" if any("error" in row for row in found["rows"][-1:]) else "out of time"


def text(head: Row, sections: Sections) -> str:
    """JSON with a line for every row."""
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    parts = []
    for name, found in sections.items():
        rows = ",\n".join(f"   {json.dumps(row)}" for row in found["rows"])
        about = json.dumps({key: x for key, x in found.items() if key != "rows"})
        parts.append(f'  {json.dumps(name)}: {about[:-1]}, "rows": [\n{rows}\n  ]}}')
    return "\n".join(["{", *lines, ' "sections": {', ",\n".join(parts), " }", "}", ""])
