"""A model's weights on disk: its safetensors files, and the digest that names them."""

import hashlib
from pathlib import Path

from profiles.errors import MeasuringError


def weights_of(folder: Path) -> list[Path]:
    """The model's safetensors files, sorted; MeasuringError where there are none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise MeasuringError(
            f"{folder}: has no *.safetensors (transformers' save_pretrained writes them; pickled "
            "weights are not read)"
        )
    return files


def sha256_of(files: list[Path]) -> str:
    """One digest of the files' names and bytes."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while piece := stream.read(2**20):
                digest.update(piece)
    return digest.hexdigest()
