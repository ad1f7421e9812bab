"""The model that is evaluated: loaded, held against its profile, and named by its weights."""

import hashlib
from dataclasses import dataclass
from typing import Any

from executor.evaluation.errors import EvaluationError
from profiles.model import ModelProfile


@dataclass(frozen=True, eq=False)
class Loaded:
    """A causal language model of transformers, its tokenizer and a digest of its weights."""

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
    """A directory in transformers' format, or a name of the hub. Raises EvaluationError."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(name, dtype="auto")
        model = model.to(device).eval()
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(f"--model {name}: cannot be loaded: {error}") from None
    return Loaded(model, tokenizer, weights_digest(model))


def weights_digest(model: Any) -> str:
    """SHA-256 of every parameter's name, type, shape and bytes."""
    import torch

    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


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
