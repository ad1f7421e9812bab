"""The model that is evaluated: loaded, held against its profile, and named by its weights."""

from dataclasses import dataclass
from typing import Any

from executor.errors import EvaluationError
from profiles.architecture import ITEM_BYTES
from profiles.config_json import architecture_of
from profiles.errors import MeasuringError
from profiles.model import ModelProfile
from profiles.weights import sha256_of, weights_of

SHAPE = ("layers", "query_heads", "kv_heads", "head_dim")
"""What a profile and a model must agree on."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A causal language model of transformers, its tokenizer and a digest of its weights' files."""

    model: Any
    tokenizer: Any
    weights_sha256: str

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return str(self.model.dtype).removeprefix("torch.")

    def count(self, text: str) -> int:
        """Tokens of a text by itself, as the generator of tasks counts them."""
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    @property
    def most_tokens(self) -> int | None:
        """Positions the model was made for."""
        config = self.model.config.get_text_config()
        return getattr(config, "max_position_embeddings", None)

    def check_positions(self, flag: str, tokens: int) -> None:
        """Raise EvaluationError, which names the flag, where the model has no so many positions."""
        if self.most_tokens is not None and tokens > self.most_tokens:
            raise EvaluationError(
                f"{flag}: {tokens} tokens are beyond the model's {self.most_tokens} positions"
            )


def load(name: str, dtype: str | None = None) -> Loaded:
    """A folder in transformers' format, a fetched model, the shipped "reference" or a hub id.

    On the GPU where there is one. `dtype` is what the model is measured in unless given: float32
    on a CPU, bfloat16 on CUDA. Raises EvaluationError where it cannot be loaded whole.
    """
    import torch

    from profiles.measuring.loading import dtype_for, folder_of, from_folder

    if dtype is not None and dtype not in ITEM_BYTES:
        raise EvaluationError(f"--dtype: {dtype!r} is not one of {', '.join(ITEM_BYTES)}")

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        folder = folder_of(name)
        digest = sha256_of(weights_of(folder))
        model, tokenizer = from_folder(
            name, folder, dtype=getattr(torch, dtype or dtype_for(device))
        )
    except MeasuringError as error:
        raise EvaluationError(f"--model {error}") from None
    return Loaded(model.to(device).eval(), tokenizer, digest)


def check_profile(loaded: Loaded, profile: ModelProfile) -> None:
    """Raise EvaluationError where the profile is of another architecture than the model."""
    own = architecture_of(loaded.model.config.to_dict(), "--model: its configuration")
    for field in SHAPE:
        of_profile, of_model = getattr(profile.architecture, field), getattr(own, field)
        if of_profile != of_model:
            raise EvaluationError(
                f"--profile {profile.name}: {field} is {of_profile}, but the model has {of_model}"
            )
