"""What is measured so far, kept on disk: an interrupted measurement goes on where it stopped."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from profiles.errors import MeasuringError
from profiles.files import write_atomically

RUN = "run.json"


class Parts:
    """A folder of one `.npz` per finished (prompt, context), and the choices they belong to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, choices: dict[str, Any]) -> None:
        """Begin, or go on; MeasuringError where the folder holds anything but these choices'."""
        if self.folder.exists() and not self.folder.is_dir():
            raise MeasuringError(f"{self.folder}: is no folder to keep finished parts in")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            found = json.loads(self._run.read_text()) if self._run.exists() else None
            empty = not any(self.folder.iterdir())
        except (OSError, ValueError) as error:
            raise MeasuringError(f"{self.folder}: cannot be used: {error}") from None
        if found is None and not empty:
            raise MeasuringError(f"{self.folder}: is not empty, and no measurement's")
        if found is None:
            write_atomically(self._run, json.dumps(choices, indent=2) + "\n")
        elif found != choices:
            others = found if isinstance(found, dict) else {}
            first = next((f for f in choices if others.get(f) != choices[f]), "fields")
            raise MeasuringError(
                f"{self.folder}: holds parts of another measurement ({first}: {others.get(first)} "
                f"there, {choices.get(first)} now): remove it, or name another with --state-dir"
            )

    @property
    def _run(self) -> Path:
        return self.folder / RUN

    def load(self, name: str) -> dict[str, NDArray[np.float64]] | None:
        """A finished part, or None; one that cannot be used is measured again."""
        try:
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as arrays:
                found = {field: arrays[field] for field in arrays}
        except Exception:
            # A damaged archive raises zipfile's, zlib's and numpy's errors, and its parser's.
            return None
        return found if all(np.isfinite(values).all() for values in found.values()) else None

    def save(self, name: str, arrays: dict[str, NDArray[np.float64]]) -> None:
        """Keep a finished part, whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        temporary = self.folder / f"{name}.tmp"
        try:
            temporary.write_bytes(buffer.getvalue())
            os.replace(temporary, self.folder / f"{name}.npz")
        except OSError as error:
            raise MeasuringError(f"{self.folder}: cannot be written: {error.strerror}") from None

    def remove(self) -> None:
        """Delete every part; the folder too, if nothing else lies in it."""
        for file in [*self.folder.glob("*.npz"), *self.folder.glob("*.tmp"), self._run]:
            file.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()
