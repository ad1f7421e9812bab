"""Every benchmark's --json: what its report says of the run, and where it goes."""

import argparse
import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any, TextIO


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The flags of `parser` and --json; a file that cannot be written is refused before the work.

    `json` is None without the flag and "-" for stdout.
    """
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="- or none: stdout")
    found = parser.parse_args()
    if found.json not in (None, "-") and not Path(found.json).parent.is_dir():
        parser.error(f"{found.json}: no such folder")
    return found


def table_to(destination: str | None) -> TextIO:
    """Where a table goes: stdout, unless the JSON goes there."""
    return sys.stderr if destination == "-" else sys.stdout


def deliver(destination: str | None, **findings: Any) -> None:
    """Print or write, where asked for: the command, the machine, then what was found."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    report = {"command": shlex.join(["python", *sys.argv]), "machine": machine, **findings}
    text = json.dumps(report, indent=1)
    if destination == "-":
        print(text)
    elif destination:
        Path(destination).write_text(text + "\n")
