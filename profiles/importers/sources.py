"""What all importers do: hold figures against an architecture, build the profile."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from profiles.architecture import Architecture
from profiles.errors import ProfileError, describe
from profiles.model import ModelProfile
from profiles.selection import POOLED, Selection

Floats = NDArray[np.float64]


def require_shape(
    path: Path,
    found: tuple[int, ...],
    architecture: Architecture,
    kind: Literal["query", "KV"] = "query",
) -> None:
    """Refuse figures `[layers, heads]` that are not about this architecture's `kind` heads."""
    heads = architecture.query_heads if kind == "query" else architecture.kv_heads
    if found != (architecture.layers, heads):
        raise ProfileError(
            f"{path}: figures for {' x '.join(map(str, found))} (layers x {kind} heads), but the "
            f"model has {architecture.layers} x {heads}; is it another model's file?"
        )


def per_query_head(values: Floats, architecture: Architecture) -> Floats:
    """KV heads' figures `[..., kv_heads]` given to each of their query heads, `[..., heads]`."""
    return np.repeat(values, architecture.group_size, axis=-1)


def build(
    path: Path,
    name: str,
    architecture: Architecture,
    heads: Any,
    what: str,
    selection: Selection | dict[str, Any] = POOLED,
) -> ModelProfile:
    """The profile of a form's fields `heads`, with a source of `what` and the file's name."""
    try:
        return ModelProfile.model_validate(
            {
                "name": name,
                "architecture": architecture,
                "heads": heads,
                "selection": selection,
                "source": f"{what}, from {path.name}",
                "synthetic": False,
            }
        )
    except ValidationError as error:
        raise ProfileError(f"{path}: {describe(error)}") from None
    except OverflowError:
        raise ProfileError(f"{path}: a number is too large to be a count of tokens") from None
