"""Budgets by HeadKV's rule (FYYFU/HeadKV, arXiv 2410.19258) from scores of retrieval heads.

HeadKV's own score files and those of nightdessert/Retrieval_Head (arXiv 2404.15574), which they
continue, are written alike.
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from profiles.architecture import Architecture
from profiles.errors import ProfileError
from profiles.files import read_json
from profiles.importers.sources import Floats, build, require_shape
from profiles.model import ModelProfile

WINDOW_TOKENS = 32
"""The last tokens, which every head keeps; HeadKV's own."""
HEAD = re.compile(r"(0|[1-9]\d*)-(0|[1-9]\d*)")


def read(
    path: Path,
    name: str,
    architecture: Architecture,
    *,
    capacity_tokens: int | None = None,
    beta: float | None = None,
    window_tokens: int = WINDOW_TOKENS,
) -> ModelProfile:
    """Budgets from a file `{"<layer>-<query head>": [score of every trial, ...], ...}`.

    The mean head keeps `capacity_tokens`: the window, and b beyond it. Of b every head gives
    floor(b / beta) to a pool that is shared out by mean scores: a head keeps round(score / sum of
    scores * pool) + b - floor(b / beta) + window. Scores alone say no budget: without capacity and
    beta there is none. Raises ProfileError.
    """
    if capacity_tokens is None or beta is None:
        raise ProfileError(
            f"{path}: scores are no budgets: HeadKV's rule needs capacity_tokens, what the mean "
            "head keeps, and beta, how little of it is shared out (--capacity-tokens and --beta)"
        )
    if not window_tokens >= 1 or not capacity_tokens > window_tokens:
        raise ProfileError(
            f"capacity_tokens {capacity_tokens} and window_tokens {window_tokens}: the window must "
            "be at least 1, and the capacity more than that"
        )
    if not (math.isfinite(beta) and beta >= 1):
        raise ProfileError(f"beta: must be at least 1, found {beta}")
    scores = _scores(path, read_json(path))
    require_shape(path, scores.shape, architecture)
    if not scores.sum():
        raise ProfileError(f"{path}: all scores are 0: there is nothing to share out by")
    beyond = capacity_tokens - window_tokens
    given = beyond // beta
    tokens = np.round(scores / scores.sum() * given * scores.size + (beyond - given))
    heads = {"form": "budgets", "tokens": (tokens + window_tokens).tolist()}
    what = (
        f"HeadKV's rule (capacity {capacity_tokens}, beta {beta:g}, window {window_tokens} tokens) "
        "on scores of retrieval heads"
    )
    return build(path, name, architecture, heads, what)


def _scores(path: Path, document: Any) -> Floats:
    """The mean score of every head, `[layers, query_heads]`."""
    if not isinstance(document, dict) or not document:
        raise ProfileError(f"{path}: must be a JSON object from 'layer-head' to lists of scores")
    found = {}
    for key, trials in document.items():
        numbers = HEAD.fullmatch(key)
        if numbers is None:
            raise ProfileError(f"{path}: {key!r} is not 'layer-head', as 0-0")
        found[int(numbers[1]), int(numbers[2])] = _mean(trials, f"{path}: head {key}")
    shape = (max(layer for layer, _ in found) + 1, max(head for _, head in found) + 1)
    missing = next((place for place in np.ndindex(shape) if place not in found), None)
    if missing is not None:
        raise ProfileError(
            f"{path}: head {missing[0]}-{missing[1]} is missing from {shape[0]} layers of "
            f"{shape[1]} heads"
        )
    return np.array([[found[layer, head] for head in range(shape[1])] for layer in range(shape[0])])


def _mean(trials: Any, place: str) -> float:
    if not isinstance(trials, list) or not trials:
        raise ProfileError(f"{place}: must be a list of scores")
    for score in trials:
        number = isinstance(score, int | float) and not isinstance(score, bool)
        if not number or not 0 <= score < math.inf:
            raise ProfileError(f"{place}: {score!r} is not a score from 0")
    return float(np.mean(trials))
