"""MInference's offline search (microsoft/MInference, `minference/configs`, arXiv 2407.02490)."""

from pathlib import Path
from typing import Any

from profiles.architecture import Architecture
from profiles.errors import ProfileError
from profiles.files import read_json
from profiles.importers.sources import build, require_shape
from profiles.model import ModelProfile
from profiles.selection import VerticalSlash

PATTERNS = ("vertical_and_slash", "stream_llm")
"""Patterns whose two numbers are keys per query row: vertical + slash, or sink + recent."""


def read(path: Path, name: str, architecture: Architecture) -> ModelProfile:
    """Budgets of a file `[{"<head>": [pattern, first, second, score], ...} per layer]`.

    A head's budget is first + second; the score (captured mass in some files, a count of errors
    in others) says nothing about work and is left out. Blocks are chosen by columns and
    diagonals throughout: a sink and a recent window are such themselves. Raises ProfileError.
    """
    document = read_json(path)
    if not isinstance(document, list) or not document:
        raise ProfileError(f"{path}: must be a JSON list with one object for each layer")
    tokens = [_layer(entry, f"{path}: layer {layer}") for layer, entry in enumerate(document)]
    for layer, row in enumerate(tokens):
        if len(row) != len(tokens[0]):
            raise ProfileError(
                f"{path}: layer {layer}: {len(row)} heads, but layer 0 has {len(tokens[0])}"
            )
    require_shape(path, (len(tokens), len(tokens[0])), architecture)
    what = "MInference pattern search (budget = sum of the pattern's two key counts)"
    heads = {"form": "budgets", "tokens": tokens}
    return build(path, name, architecture, heads, what, VerticalSlash())


def _layer(entry: Any, place: str) -> list[float]:
    if not isinstance(entry, dict) or not entry:
        raise ProfileError(f"{place}: must be an object from head numbers to patterns")
    wanted = [str(head) for head in range(len(entry))]
    missing = [head for head in wanted if head not in entry]
    if missing:
        raise ProfileError(
            f"{place}: head {missing[0]} is missing: its {len(entry)} heads must be numbered "
            f"from 0 to {len(entry) - 1}"
        )
    return [_tokens(entry[head], f"{place}, head {head}") for head in wanted]


def _tokens(pattern: Any, place: str) -> float:
    if not isinstance(pattern, list) or len(pattern) != 4:
        raise ProfileError(f"{place}: must be [pattern, number, number, score]")
    if pattern[0] not in PATTERNS:
        raise ProfileError(
            f"{place}: unknown pattern {pattern[0]!r}: known are {', '.join(PATTERNS)}"
        )
    keys = 0
    for count in pattern[1:3]:
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ProfileError(f"{place}: {count!r} is not a number of keys")
        keys += count
    return keys
