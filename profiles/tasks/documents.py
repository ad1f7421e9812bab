"""Prompts as people have them: JSON lines, a plain text, or a folder of either."""

import hashlib
import json
import os
from pathlib import Path

from profiles.errors import ProfileError
from profiles.files import read_bytes, read_text
from profiles.tasks.prompts import Prompt, read

LINES = (".jsonl", ".ndjson")
"""Names of files that hold prompts as JSON lines; so does any whose first line is an object."""
LONGEST_TASK = 100


def prompts_at(path: Path) -> list[Prompt]:
    """Every prompt of a file or a folder, in the order of the files' names.

    A file of JSON lines holds prompts (`profiles.tasks.prompts`); any other is one, a plain text
    in UTF-8. Files in a folder's own folders have the name of the first of these as their task;
    hidden files and empty texts are passed over. Raises ProfileError where there are none, or one
    cannot be read.
    """
    found = []
    for file in _files(path):
        if _holds_lines(file):
            found += read(file)
        elif text := read_text(file).strip():
            inner = file.relative_to(path).parts[:-1] if path.is_dir() else ()
            found.append(Prompt(text=text, task=inner[0][:LONGEST_TASK] if inner else "text"))
    if not found:
        raise ProfileError(f"{path}: no prompts: neither JSON lines nor a text in any file")
    return found


def digest_at(path: Path) -> str:
    """SHA-256 of a file; of a folder's files, that of their names and contents."""
    if not path.is_dir():
        return hashlib.sha256(read_bytes(path)).hexdigest()
    digest = hashlib.sha256()
    for file in _files(path):
        content = hashlib.sha256(read_bytes(file)).hexdigest()
        digest.update(f"{file.relative_to(path)}\0{content}\0".encode())
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(folder) / name for name in names if not name.startswith(".")]
    return sorted(found)


def _holds_lines(file: Path) -> bool:
    if file.suffix.lower() in LINES:
        return True
    first = read_bytes(file).lstrip().partition(b"\n")[0]
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False
