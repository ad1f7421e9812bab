"""What a section of the suite finds: rows, each on the disk as soon as it is there.

A section's files outlive its process: the next one goes on behind the rows it finds there, so that
a case that hangs or breaks the device costs itself and a restart, not the section.
"""

import os
import re
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.rows import (
    BROKEN_DEVICE,
    EARLIER,
    SHARED,
    Row,
    append,
    document,
    has_figures,
    read,
    replace,
)

INTERPRETER = "interpreter, not a measurement"
CASE_S = 30.0
"""What a case may take before its process is ended; far more than any was estimated at."""
LEAST_CASE_S = 20.0
"""The same where the section has little time: a process's first case loads libraries."""


class Section:
    """The rows of one section, `[{"case": ..., figures}]`, and the time it may still take.

    A row without figures says why: `error`, `skipped` (never begun) or `out_of_time` (written by
    the parent process, which ends a worker whose case takes too long). `tiny`: shapes for Triton's
    interpreter on a CPU, where seconds mean nothing and no case is too slow. `until`, seconds since
    1970: when no further case is begun; `ends`: when everything is.
    """

    def __init__(self, name: str, folder: Path, *, tiny: bool, until: float, ends: float) -> None:
        self.name, self.tiny = name, tiny
        if tiny:
            # Triton's interpreter alone is what is spared.
            from benchmarks.gpu.interpreter import spare

            spare()
        self.device = torch.device("cpu" if tiny else "cuda")
        self._folder, self._ends = folder, ends
        before = document(folder, name)
        self.rows: list[Row] = before.get("rows", [])
        self._until: float = before.get("until", until)
        self._began: float = before.get("began", time.time())
        earlier = read(folder / EARLIER / f"{name}.json").get("rows", [])
        self._earlier: dict[str, Row] = {row["case"]: row for row in earlier}
        self._under_way: Row | None = None
        self._write(complete=False)

    @property
    def left_s(self) -> float:
        return self._until - time.time()

    def attempt(self, case: str, measure: Callable[[], Row], limit_s: float = CASE_S) -> Row | None:
        """Run one case and keep its row, if it has figures; a failure is one too. None after it.

        A case that has a row already, of an earlier process or run, is not run again. Leaves the
        process where the device is broken: whatever came next would fail as well.
        """
        for row in self.rows:
            if row["case"] == case:
                return row if has_figures(row) else None
        if case in self._earlier:
            self._keep(self._earlier[case])
            return self._earlier[case]
        if self.left_s <= 0:
            # Not told one by one: there may be hundreds.
            self._add({"case": case, "skipped": "no time left"})
            return None
        self._begin(case, limit_s)
        try:
            row = {"case": case, **measure()}
        except Exception as error:
            self.failed(case, error)
            return None
        self._under_way = None
        if len(row) > 1:
            self._keep(row)
        return row

    def failed(self, case: str, error: Exception) -> None:
        """Keep an error as the row of `case`; leaves the process where the device is broken."""
        self._under_way = None
        self._keep({"case": case, "error": str(error)[:2000], "trace": traceback.format_exc()})
        if not self.tiny:
            self._leave_if_broken()

    def shared(self, name: str, measure: Callable[[], Row]) -> Row:
        """The row of `name`, measured once by whichever section of the run, or earlier run, asks
        first."""
        at = f"{re.sub('[^a-z0-9]+', '_', name.lower())}.json"
        found = read(self._folder / SHARED / at) or read(self._folder / EARLIER / SHARED / at)
        if not found:
            found = measure()
            (self._folder / SHARED).mkdir(exist_ok=True)
            replace(self._folder / SHARED / at, found)
        return found

    def finish(self) -> None:
        skipped = sum("skipped" in row for row in self.rows)
        if skipped:
            self._say(f"{skipped} cases skipped: no time left")
        self._write(complete=True)

    def _begin(self, case: str, limit_s: float) -> None:
        until = None
        if not self.tiny:
            # No case takes the whole section's time, nor much more than is left of it.
            limit_s = min(limit_s, max(LEAST_CASE_S, self.left_s / 2))
            until = time.time() + limit_s
        self._under_way = {"case": case, "until": until}
        self._write(complete=False)

    def _leave_if_broken(self) -> None:
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except Exception:
            os._exit(BROKEN_DEVICE)

    def _keep(self, row: Row) -> None:
        self._add(row)
        self._write(complete=False)
        self._say(_short({k: v for k, v in row.items() if k not in ("trace", "table", "work")}))

    def _add(self, row: Row) -> None:
        self.rows.append(row)
        append(self._folder, self.name, row)

    def _say(self, what: str) -> None:
        print(f"[{max(self._ends - time.time(), 0):4.0f} s left] {self.name}: {what}", flush=True)

    def _write(self, *, complete: bool) -> None:
        found: Row = {
            "section": self.name,
            "complete": complete,
            "seconds": round(time.time() - self._began, 2),
            "began": self._began,
            "until": self._until,
            "under_way": self._under_way,
        }
        if self.tiny:
            found["label"] = INTERPRETER
        replace(self._folder / f"{self.name}.json", found)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={_short(each)}" for key, each in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + " ".join(_short(each) for each in value[:12]) + "]"
    return str(value)
