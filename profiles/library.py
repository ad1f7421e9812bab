"""Model profiles by name: the ones shipped in the catalogue, or a profile file of one's own."""

import os
from functools import cache
from importlib.resources import files
from pathlib import Path

from profiles.errors import UnknownNameError
from profiles.model import ModelProfile

DEFAULT_PROFILE = "llama-3.1-8b-synthetic"
CATALOGUE = files("profiles") / "catalog" / "models"
REFERENCE_MODEL = "reference"
REFERENCE_FOLDER = Path(str(files("profiles") / "catalog" / "reference"))
"""The model that is shipped, in transformers' format."""
REFERENCE_PROFILE = "reference-model"
"""What was measured on it."""
REFERENCE_PROMPTS = REFERENCE_FOLDER / "prompts.jsonl"
"""Held-out prompts of its longest context, for whoever wants to see it work."""


@cache
def catalogue_names() -> tuple[str, ...]:
    """The profiles that are shipped, sorted."""
    return tuple(sorted(file.name.removesuffix(".json") for file in CATALOGUE.iterdir()))


@cache
def catalogue_profile(name: str) -> ModelProfile:
    """A shipped profile; UnknownNameError for any other name. Never opens a path it is given."""
    if name not in catalogue_names():
        raise UnknownNameError(
            f"unknown profile {name!r}: the catalogue has {', '.join(catalogue_names())}"
        )
    return ModelProfile.parse((CATALOGUE / f"{name}.json").read_bytes(), name)


def resolve_profile(name_or_path: str) -> ModelProfile:
    """A shipped profile by name, or else the profile file at this path.

    Raises UnknownNameError where there is neither, ProfileError where the file is no profile.
    """
    if name_or_path not in catalogue_names() and os.path.exists(name_or_path):
        return ModelProfile.load(Path(name_or_path))
    try:
        return catalogue_profile(name_or_path)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{error}; nor is there such a file (`hplb profiles import` makes one)"
        ) from None
