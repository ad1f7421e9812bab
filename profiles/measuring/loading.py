"""A transformers model from its folder or the hub, ready to be watched; or its tokens alone."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers.utils.logging import disable_progress_bar

from profiles.architecture import Architecture
from profiles.config_json import architecture_from_config
from profiles.errors import MeasuringError
from profiles.fetched import known_folder
from profiles.measuring import capture
from profiles.measuring.choices import Choices
from profiles.measuring.layer_attention import LayerAttention
from profiles.tasks.token_room import Count
from profiles.weights import sha256_of, weights_of

HUB_ID = r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?"
HUB_FILES = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True, eq=False)
class Loaded:
    """A causal language model of transformers, and what it was read from."""

    model: Any
    tokenizer: Any
    architecture: Architecture
    weights_sha256: str

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return str(self.model.dtype).removeprefix("torch.")

    def count(self, text: str) -> int:
        """Tokens of a text by itself, as the generator of tasks counts them."""
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def folder_of(model: str) -> Path:
    """The model's folder; "reference" is shipped, a hub id downloaded. Raises MeasuringError.

    The names of `hplb models list` stand for what was fetched.
    """
    known = known_folder(model)
    if known is not None:
        return known
    folder = Path(model)
    if folder.is_dir():
        return folder
    if folder.exists() or not re.fullmatch(HUB_ID, model):
        raise MeasuringError(f"{model}: no such folder, and no Hugging Face id (owner/name)")
    try:
        return Path(snapshot_download(model, allow_patterns=HUB_FILES))
    except Exception as error:
        # The hub's client raises its own errors, its HTTP client's and the system's.
        first = str(error).strip().partition("\n")[0]
        raise MeasuringError(
            f"{model}: no such folder, and not to be had from the hub: {first}"
        ) from None


def dtype_for(device: str) -> str:
    """What a model is measured and evaluated in on "cpu" or "cuda:N" unless something is asked."""
    return "bfloat16" if device.startswith("cuda") else "float32"


def load_whole(name: str, dtype: str, device: str, **options: Any) -> Loaded:
    """Load model and tokenizer; `options` are `from_pretrained`'s.

    Raises MeasuringError, ProfileError for its config.json.
    """
    folder = folder_of(name)
    architecture = architecture_from_config(folder / "config.json")
    weights = weights_of(folder)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise MeasuringError(f"device: {device}, but torch finds no CUDA device here")
    model, tokenizer = from_folder(name, folder, dtype=getattr(torch, dtype), **options)
    model.eval().requires_grad_(False).to(device)
    return Loaded(model, tokenizer, architecture, sha256_of(weights))


def load(choices: Choices) -> Loaded:
    """As `load_whole`, a model that computes its attention in `capture`."""
    model, longest = choices.model, choices.contexts[-1]
    loaded = load_whole(model, choices.dtype, choices.device, attn_implementation=capture.NAME)
    most = most_tokens(loaded.model)
    if most is not None and longest > most:
        raise MeasuringError(f"contexts: {longest} tokens, but {model} has positions for {most}")
    require_tensors(model, loaded.model, loaded.architecture)
    return loaded


def from_folder(
    name: str,
    folder: Path,
    kind: Any = transformers.AutoModelForCausalLM,
    *,
    tokenizer: bool = True,
    **options: Any,
) -> tuple[Any, Any]:
    """A model of a `kind` from a folder and its tokenizer, None unless asked for; `options` are
    `from_pretrained`'s, `name` is for errors.

    Raises MeasuringError where they cannot be read, or any of the model's weights is missing or of
    another shape.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        words = (
            transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            if tokenizer
            else None
        )
        model, report = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, ImportError) as error:
        first = str(error).strip().partition("\n")[0]
        raise MeasuringError(f"{name}: cannot be loaded: {first}") from None
    missing = sorted(report["missing_keys"])
    if missing:
        # transformers would make them up, and what heads then do is no model's.
        raise MeasuringError(
            f"{name}: {len(missing)} weights are missing from its files, {missing[0]} the first of "
            "them"
        )
    return model, words


def most_tokens(model: Any) -> int | None:
    """Positions that a model was made for, None where it has no last one."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


@torch.no_grad()
def require_tensors(name: str, model: Any, architecture: Architecture) -> None:
    """Hold what the model computes against the architecture its config.json was read as.

    Two tokens go through the model, whose attention is `capture`. Raises MeasuringError, which
    begins with `name`.
    """
    found: list[tuple[int, tuple[int, int, int, int | None]]] = []

    def watch(call: LayerAttention, _out: torch.Tensor) -> None:
        heads, _, head_dim = call.q.shape
        found.append((call.layer, (heads, call.k.shape[0], head_dim, call.window)))

    with capture.watching(watch):
        model(torch.zeros(1, 2, dtype=torch.long, device=model.device), use_cache=False)
    layers = architecture.layers
    if sorted(layer for layer, _ in found) != list(range(layers)):
        raise MeasuringError(
            f"{name}: {len(found)} of its {layers} layers compute their attention through "
            "transformers' attention interface"
        )
    heads = (architecture.query_heads, architecture.kv_heads, architecture.head_dim)
    windows = architecture.windows or (None,) * layers
    for layer, computed in found:
        read = (*heads, windows[layer])
        if computed != read:
            raise MeasuringError(
                f"{name}: layer {layer} has {_in_words(*computed)}, but its config.json was read "
                f"as one of {_in_words(*read)}"
            )


def _in_words(heads: int, kv_heads: int, head_dim: int, window: int | None) -> str:
    seen = "no window" if window is None else f"a window of {window}"
    return f"{heads} query and {kv_heads} KV heads of {head_dim} dimensions and {seen}"


def counter(model: str) -> Count:
    """How many tokens a text takes beside others. Raises MeasuringError."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder_of(model), local_files_only=True
        )
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().partition("\n")[0]
        raise MeasuringError(f"{model}: its tokenizer cannot be loaded: {first}") from None

    @cache
    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return count
