"""What a section of the suite finds: rows, each on the disk as soon as it is there."""

import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]
INTERPRETER = "interpreter, not a measurement"
BROKEN_DEVICE = 3
"""Exit code of a worker whose device answers no more: the next section needs a new process."""


class Section:
    """The rows of one section, `[{"case": ..., figures}]`, and the time it may still take.

    `tiny`: shapes for Triton's interpreter on a CPU, where seconds mean nothing.
    """

    def __init__(self, name: str, folder: Path, *, tiny: bool, seconds: float) -> None:
        self.name, self.path, self.tiny = name, folder / f"{name}.json", tiny
        self.device = torch.device("cpu" if tiny else "cuda")
        self.rows: list[Row] = []
        self._began, self._seconds = time.monotonic(), seconds
        self._write(complete=False)

    @property
    def left_s(self) -> float:
        return self._seconds - (time.monotonic() - self._began)

    def attempt(self, case: str, measure: Callable[[], Row]) -> Row | None:
        """Run one case and keep its row, if it has figures; a failure is one too. None after it.

        Leaves the process where the device is broken: whatever came next would fail as well.
        """
        if self.left_s <= 0:
            self._keep({"case": case, "skipped": "no time left"})
            return None
        try:
            row = {"case": case, **measure()}
        except Exception as error:
            self._keep({"case": case, "error": str(error)[:2000], "trace": traceback.format_exc()})
            if not self.tiny:
                self._leave_if_broken()
            return None
        if len(row) > 1:
            self._keep(row)
        return row

    def finish(self) -> None:
        self._write(complete=True)

    def _leave_if_broken(self) -> None:
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except Exception:
            os._exit(BROKEN_DEVICE)

    def _keep(self, row: Row) -> None:
        self.rows.append(row)
        self._write(complete=False)
        shown = {key: value for key, value in row.items() if key not in ("trace", "table")}
        print(f"[{self.name}] {_short(shown)}", flush=True)

    def _write(self, *, complete: bool) -> None:
        found: Row = {
            "section": self.name,
            "complete": complete,
            "seconds": round(time.monotonic() - self._began, 2),
            "until": time.time() + max(self.left_s, 0.0),
            "rows": self.rows,
        }
        if self.tiny:
            found["label"] = INTERPRETER
        unfinished = self.path.with_suffix(".part")
        unfinished.write_text(json.dumps(found, indent=1))
        unfinished.replace(self.path)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={_short(each)}" for key, each in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + " ".join(_short(each) for each in value[:12]) + "]"
    return str(value)
