"""Markdown that commands write: tables, and regions between two comments of a document."""

from collections.abc import Sequence

from profiles.errors import HplbError

END = "<!-- end -->"


class NoRegionError(HplbError):
    """A document has no region for a command to write to."""


def begin(command: str) -> str:
    """The comment before what `python -m COMMAND` writes."""
    return f"<!-- begin: python -m {command} writes this from benchmarks/results -->"


def replaced(document: str, text: str, command: str, where: str) -> str:
    """`document` with `text` as the region of `command`; raises NoRegionError, naming `where`."""
    before, found, rest = document.partition(begin(command))
    _, end, after = rest.partition(END)
    if not found or not end:
        raise NoRegionError(f"{where}: has no {begin(command)} and {END} to write between")
    return f"{before}{found}\n{text}\n{end}{after}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table and an empty one; none without rows."""
    if not rows:
        return []
    lines = [heads, ["---"] * len(heads), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]
