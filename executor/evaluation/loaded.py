"""The model that is evaluated: loaded, and held against its profile and what is asked of it."""

import torch

from executor.errors import EvaluationError
from profiles.architecture import ITEM_BYTES
from profiles.errors import MeasuringError
from profiles.measuring.loading import Loaded, dtype_for, load_whole, most_tokens
from profiles.model import ModelProfile


def load(name: str, dtype: str | None = None) -> Loaded:
    """A folder in transformers' format, a fetched model, the shipped "reference" or a hub id.

    On the GPU where there is one. `dtype` is what the model is measured in unless given: float32
    on a CPU, bfloat16 on CUDA. Raises EvaluationError where it cannot be loaded whole.
    """
    if dtype is not None and dtype not in ITEM_BYTES:
        raise EvaluationError(f"--dtype: {dtype!r} is not one of {', '.join(ITEM_BYTES)}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return load_whole(name, dtype or dtype_for(device), device)
    except MeasuringError as error:
        raise EvaluationError(f"--model {error}") from None


def check_positions(loaded: Loaded, flag: str, tokens: int) -> None:
    """Raise EvaluationError, which names the flag, where the model has no so many positions."""
    most = most_tokens(loaded.model)
    if most is not None and tokens > most:
        raise EvaluationError(f"{flag}: {tokens} tokens are beyond the model's {most} positions")


def check_profile(loaded: Loaded, profile: ModelProfile) -> None:
    """Raise EvaluationError where the profile is of another architecture than the model."""
    shape = profile.architecture
    for field in shape.differing(loaded.architecture):
        raise EvaluationError(
            f"--profile {profile.name}: {field} is {getattr(shape, field)}, but the model has "
            f"{getattr(loaded.architecture, field)}"
        )
