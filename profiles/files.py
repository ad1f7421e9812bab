"""Files read whole and written whole, their faults said in one line."""

import os
import tempfile
from pathlib import Path
from typing import Any

from profiles.errors import ProfileError
from profiles.strict_json import JsonError, parse_json


def read_bytes(path: Path) -> bytes:
    """The file's content; ProfileError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from None


def read_text(path: Path) -> str:
    """The file's text, UTF-8, lines ended by "\\n" alone; ProfileError where it is none.

    A byte-order mark is dropped, and Windows' line ends are made plain ones.
    """
    try:
        return read_bytes(path).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ProfileError(
            f"{path}: is not UTF-8 text: byte {error.start}: {error.reason}"
        ) from None


def read_json(path: Path) -> Any:
    """The file's JSON; ProfileError with line and column where it is cut off or broken."""
    return json_of(read_bytes(path), str(path))


def json_of(content: str | bytes, where: str) -> Any:
    """What a JSON text says; ProfileError begins with `where` it stood."""
    try:
        return parse_json(content)
    except JsonError as error:
        raise ProfileError(f"{where}: {error}") from None


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text`; a crash leaves the old file or the new one, never half.

    A link is followed; what is no regular file (/dev/stdout, a pipe) is written to, not replaced.
    """
    try:
        path = path.resolve()
        if path.exists() and not path.is_file():
            path.write_text(text)
            return
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ProfileError(f"{path}: cannot be written: {error.strerror}") from None
