"""MoA's elastic rules (thu-nics/MoA, `moa_alpha_beta.json`, arXiv 2406.14909)."""

from pathlib import Path

from profiles.architecture import Architecture
from profiles.errors import ProfileError
from profiles.files import read_json
from profiles.importers.sources import build
from profiles.model import ModelProfile
from profiles.selection import SinkLocal

SINK_TOKENS = 64
"""One block of 64 is global in every head; the file does not state it."""


def read(path: Path, name: str, architecture: Architecture) -> ModelProfile:
    """Rules of a file `{"alphas": [layers][heads], "betas": [layers][heads]}`.

    A head's span is alpha + beta * context tokens: a sink and the nearest keys. Raises
    ProfileError.
    """
    document = read_json(path)
    if not isinstance(document, dict):
        raise ProfileError(f"{path}: must be a JSON object with alphas and betas")
    for field in ("alphas", "betas"):
        if field not in document:
            raise ProfileError(f"{path}: {field} is missing")
    heads = {"form": "rules", "alpha_tokens": document["alphas"], "beta": document["betas"]}
    what = "MoA elastic rules (alpha + beta * context)"
    return build(path, name, architecture, heads, what, SinkLocal(sink_tokens=SINK_TOKENS))
