"""Flags that commands of several parts share, and what is written behind them.

A thing has one name, one short letter and one unit in every command (`tests/test_command_line.py`);
what takes several is named in the plural and takes them with commas between.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from profiles.catalogue import REFERENCE_MODEL, catalogue_names
from profiles.errors import HplbError
from profiles.fetched import PUBLISHED


class FlagError(HplbError):
    """A flag's value is not of its form: says which flag, and what would be."""


def profile_names() -> list[str]:
    """What a shell offers behind `--profile`; paths it knows itself."""
    return list(catalogue_names())


def model_names() -> list[str]:
    """What a shell offers behind `--model`."""
    return [*PUBLISHED, REFERENCE_MODEL]


Profile = Annotated[
    str,
    typer.Option(
        "--profile",
        "-p",
        help="A profile's name or the path of its JSON.",
        autocompletion=profile_names,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        help="A folder of transformers, a fetched model or reference.", autocompletion=model_names
    ),
]
Data = Annotated[
    Path,
    typer.Option(help="Prompts as JSON lines, a plain text, or a folder of either."),
]
ProfileOut = Annotated[Path, typer.Option("--out", "-o", help="The profile file to write.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def whole_numbers(flag: str, text: str) -> list[int]:
    """`2,4,8` as numbers. Raises FlagError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise FlagError(f"{flag}: {text!r} is not a list of whole numbers such as 2,4,8")
    return [int(part) for part in parts]


def shares(flag: str, text: str) -> tuple[float, ...]:
    """`0.1,0.5` as numbers, each once. Raises FlagError."""
    try:
        return tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        raise FlagError(f"{flag}: {text!r} is not a list of shares such as 0.1,0.5") from None


def check_folders(*paths: Path | None) -> None:
    """Refuse a path in a folder that is not there before anything is computed for it."""
    for path in paths:
        if path is not None and not path.absolute().parent.is_dir():
            raise FlagError(f"{path}: cannot be written: its folder does not exist")


def check_file(flag: str, path: Path | None, *suffixes: str) -> None:
    """Refuse a path that no file can be written to, or whose name promises another kind of one."""
    check_folders(path)
    if path is None:
        return
    # A name that no file may have is the writer's to refuse: Path.is_dir would raise.
    if os.path.isdir(path):
        raise FlagError(f"{flag} {path}: is a folder; name a file in it")
    if suffixes and path.suffix not in ("", *suffixes):
        kind = suffixes[0].removeprefix(".").upper()
        raise FlagError(
            f"{flag}: {path}: it is written as {kind}: name it {path.stem}{suffixes[0]}"
        )
