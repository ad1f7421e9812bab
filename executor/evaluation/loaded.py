"""The model that is evaluated: loaded, held against its profile, and named by its weights."""

from dataclasses import dataclass
from typing import Any

from executor.errors import EvaluationError
from profiles.errors import MeasuringError
from profiles.model import ModelProfile
from profiles.weights import sha256_of, weights_of


@dataclass(frozen=True, eq=False)
class Loaded:
    """A causal language model of transformers, its tokenizer and a digest of its weights' files."""

    model: Any
    tokenizer: Any
    weights_sha256: str

    def count(self, text: str) -> int:
        """Tokens of a text by itself, as the generator of tasks counts them."""
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    @property
    def most_tokens(self) -> int | None:
        """Positions the model was made for."""
        config = self.model.config.get_text_config()
        return getattr(config, "max_position_embeddings", None)


def load(name: str) -> Loaded:
    """A directory in transformers' format, a name of the hub, or the shipped "reference".

    Raises EvaluationError where it cannot be loaded whole.
    """
    import torch

    from profiles.measuring.loading import folder_of, from_folder

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        folder = folder_of(name)
        digest = sha256_of(weights_of(folder))
        model, tokenizer = from_folder(name, folder, dtype="auto")
    except MeasuringError as error:
        raise EvaluationError(f"--model {error}") from None
    return Loaded(model.to(device).eval(), tokenizer, digest)


def check_profile(loaded: Loaded, profile: ModelProfile) -> None:
    """Raise EvaluationError where the profile is of another architecture than the model."""
    config = loaded.model.config.get_text_config()
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    has = {
        "layers": config.num_hidden_layers,
        "query_heads": heads,
        "kv_heads": getattr(config, "num_key_value_heads", None) or heads,
        "head_dim": head_dim,
    }
    for field, of_model in has.items():
        of_profile = getattr(profile.architecture, field)
        if of_profile != of_model:
            raise EvaluationError(
                f"--profile {profile.name}: {field} is {of_profile}, but the model has {of_model}"
            )
