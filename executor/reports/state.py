"""What a node remembers through a crash: its assignment and how many rounds are delivered.

An assignment is on disk before the planner hears of it (the kubelet's rule), so that after a
`kill -9`, or with the planner away, the node goes on with the last good one.
"""

import fcntl
import os
from pathlib import Path
from typing import Annotated, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.client.bodies import Assignment, Key
from executor.errors import StateError
from profiles.errors import describe
from profiles.files import write_atomically

log = structlog.get_logger()
Body = TypeVar("Body", bound=BaseModel)


class Progress(BaseModel):
    """Rounds of one generation that the planner has, or does not want."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: Key
    rounds: Annotated[int, Field(ge=0)]


class NodeState:
    """The state directory's two files; `folder` is held by this process alone."""

    def __init__(self, folder: Path) -> None:
        """Raises StateError when the folder cannot be made or another executor holds it."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StateError(f"{folder}: no usable state directory: {error.strerror}") from None
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            raise StateError(
                f"{folder}: another executor is using it; give each its own --node-id"
            ) from None
        for leftover in folder.glob("*.tmp"):
            leftover.unlink(missing_ok=True)

    def save(self, assignment: Assignment) -> None:
        """Remember the assignment; when this returns it survives a crash."""
        write_atomically(self.folder / "assignment.json", assignment.model_dump_json())

    def load(self) -> Assignment | None:
        """The last assignment saved; None when there is none or its file is corrupt."""
        return read_or_set_aside(self.folder / "assignment.json", Assignment)

    def save_rounds(self, key: Key, rounds: int) -> None:
        """Remember that rounds 1 to `rounds` are delivered."""
        progress = Progress(key=key, rounds=rounds)
        write_atomically(self.folder / "progress.json", progress.model_dump_json())

    def rounds(self, key: Key) -> int:
        """Rounds delivered, if this was the last generation of which any were."""
        progress = read_or_set_aside(self.folder / "progress.json", Progress)
        return progress.rounds if progress is not None and progress.key == key else 0

    def forget_rounds(self) -> None:
        """All rounds are to be measured again."""
        (self.folder / "progress.json").unlink(missing_ok=True)

    def close(self) -> None:
        """Let another executor use the folder."""
        os.close(self._handle)


def read_or_set_aside(path: Path, kind: type[Body]) -> Body | None:
    """Read a state file; a corrupt one is renamed `*.corrupt`, with one line in the log.

    Raises StateError when the file is there but cannot be read.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        aside = path.with_name(path.name + ".corrupt")
        try:
            path.rename(aside)
        except FileNotFoundError:
            return None  # another thread found it at the same time
        log.warning("corrupt file set aside", file=str(aside), fault=describe(error))
        return None
