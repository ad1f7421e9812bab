"""Architectures of public models: a table, a tolerant look-up, and recognition from file names."""

import re
from collections.abc import Sequence
from pathlib import Path

from profiles.architecture import Architecture, Dtype
from profiles.config_json import alternating, architecture_from_config
from profiles.errors import ProfileError, UnknownNameError


def _shape(
    layers: int,
    query_heads: int,
    kv_heads: int,
    head_dim: int,
    hidden_size: int,
    mlp_size: int,
    dtype: Dtype = "bfloat16",
    *,
    windows: Sequence[int | None] = (),
    experts: int = 1,
    experts_per_token: int = 1,
) -> Architecture:
    return Architecture(
        layers=layers,
        query_heads=query_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        hidden_size=hidden_size,
        dtype=dtype,
        windows=tuple(windows),
        mlp_size=mlp_size,
        experts=experts,
        experts_per_token=experts_per_token,
    )


MODELS: dict[str, Architecture] = {
    "Llama-2-7B": _shape(32, 32, 32, 128, 4096, 11008, "float16"),
    "Llama-3-8B": _shape(32, 32, 8, 128, 4096, 14336),
    "Llama-3-70B": _shape(80, 64, 8, 128, 8192, 28672),
    "Llama-3.1-8B": _shape(32, 32, 8, 128, 4096, 14336),
    "Llama-3.1-70B": _shape(80, 64, 8, 128, 8192, 28672),
    "Llama-3.2-1B": _shape(16, 32, 8, 64, 2048, 8192),
    "Llama-3.2-3B": _shape(28, 24, 8, 128, 3072, 8192),
    "Qwen2-7B": _shape(28, 28, 4, 128, 3584, 18944),
    "Qwen2-72B": _shape(80, 64, 8, 128, 8192, 29568),
    "Qwen2.5-7B": _shape(28, 28, 4, 128, 3584, 18944),
    "Qwen2.5-14B": _shape(48, 40, 8, 128, 5120, 13824),
    "Qwen2.5-32B": _shape(64, 40, 8, 128, 5120, 27648),
    "Qwen2.5-72B": _shape(80, 64, 8, 128, 8192, 29568),
    "Qwen3-4B": _shape(36, 32, 8, 128, 2560, 9728),
    "Qwen3-32B": _shape(64, 64, 8, 128, 5120, 25600),
    "Mistral-7B": _shape(32, 32, 8, 128, 4096, 14336),
    "vicuna-7b": _shape(32, 32, 32, 128, 4096, 11008, "float16"),
    "vicuna-13b": _shape(40, 40, 40, 128, 5120, 13824, "float16"),
    "Gemma-3-12B": _shape(48, 16, 8, 256, 3840, 15360, windows=alternating(48, 1024, 6)),
    "GPT-OSS-20B": _shape(
        24, 64, 8, 64, 2880, 2880, windows=alternating(24, 128, 2), experts=32, experts_per_token=4
    ),
    "GPT-OSS-120B": _shape(
        36, 64, 8, 64, 2880, 2880, windows=alternating(36, 128, 2), experts=128, experts_per_token=4
    ),
    "Phi-3-mini": _shape(32, 32, 32, 96, 3072, 8192),
    "Yi-9B": _shape(48, 32, 4, 128, 4096, 11008),
    "GLM-4-9B": _shape(40, 32, 2, 128, 4096, 13696),
}
"""Public facts, from each model's published `config.json`."""

PARENTS_SEARCHED = 2
"""Collections keep one file per folder named after a model, or after a run within it."""


def _tokens(name: str) -> tuple[str, ...]:
    """Runs of letters and runs of digits: `Qwen2.5-7B` is qwen, 2, 5, 7, b."""
    return tuple(re.findall(r"[a-z]+|[0-9]+", name.lower()))


def model_architecture(name: str) -> Architecture:
    """The table's entry for a name, whatever its case and punctuation."""
    wanted = "".join(_tokens(name))
    for known, architecture in MODELS.items():
        if "".join(_tokens(known)) == wanted:
            return architecture
    raise UnknownNameError(f"unknown model {name!r}: known are {', '.join(MODELS)}")


def recognise(path: Path) -> str | None:
    """The table's name that a file's name speaks of, or else its folder's; None if none does.

    A known name matches where its letters and numbers appear one after another, so that
    `Llama_3.1_8B` is not read as Llama-3-8B; the longest match wins, a tie is no answer.
    """
    folders = [folder.name for folder in path.parents][:PARENTS_SEARCHED]
    return next((model for name in (path.name, *folders) if (model := _match(name))), None)


def _match(name: str) -> str | None:
    found = _tokens(name)
    lengths: dict[str, int] = {}
    for known in MODELS:
        wanted = _tokens(known)
        starts = range(len(found) - len(wanted) + 1)
        if any(found[start : start + len(wanted)] == wanted for start in starts):
            lengths[known] = len(wanted)
    longest = [known for known in lengths if lengths[known] == max(lengths.values())]
    return longest[0] if len(longest) == 1 else None


def resolve_architecture(
    path: Path, model: str | None = None, config: Path | None = None
) -> Architecture:
    """The architecture a source file's figures belong to: config.json, else model, else its name.

    Raises UnknownNameError for an unknown model, ProfileError where nothing tells.
    """
    if config is not None:
        return architecture_from_config(config)
    if model is not None:
        return model_architecture(model)
    recognised = recognise(path)
    if recognised is None:
        raise ProfileError(
            f"{path}: its name does not tell which model it is about; give model or config "
            "(--model NAME or --config config.json)"
        )
    return MODELS[recognised]
