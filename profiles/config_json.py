"""A model's architecture from the `config.json` that transformers keeps beside its weights."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from profiles.architecture import ITEM_BYTES, Architecture
from profiles.errors import ProfileError, describe
from profiles.files import read_json

LAYERS = ("num_hidden_layers", "num_layers", "n_layer")
QUERY_HEADS = ("num_attention_heads", "n_head")
KV_HEADS = ("num_key_value_heads",)
GROUPED_KV_HEADS = "multi_query_group_num"
HEAD_DIM = ("head_dim", "kv_channels")
HIDDEN_SIZE = ("hidden_size", "n_embd")
DTYPE = ("dtype", "torch_dtype")


def architecture_from_config(path: Path) -> Architecture:
    """Read layers, heads and widths from a `config.json`.

    KV heads default to the attention heads and head_dim to hidden_size / heads, as in
    transformers; a multi-modal model's figures are its `text_config`'s. Raises ProfileError.
    """
    config = read_json(path)
    if not isinstance(config, dict):
        raise ProfileError(f"{path}: must be a JSON object, as transformers' config.json is")
    text = config.get("text_config")
    nested = text if isinstance(text, dict) else {}
    fields = {**config, **{name: value for name, value in nested.items() if value is not None}}
    heads = _count(fields, QUERY_HEADS, path)
    hidden_size = _count(fields, HIDDEN_SIZE, path)
    names = _kv_names(fields)
    kv_heads = _count(fields, names, path) if _given(fields, names) else heads
    if _given(fields, HEAD_DIM):
        head_dim = _count(fields, HEAD_DIM, path)
    elif hidden_size % heads == 0:
        head_dim = hidden_size // heads
    else:
        raise ProfileError(
            f"{path}: head_dim is missing, and hidden_size {hidden_size} is no multiple of "
            f"{heads} attention heads"
        )
    try:
        return Architecture.model_validate(
            {
                "layers": _count(fields, LAYERS, path),
                "query_heads": heads,
                "kv_heads": kv_heads,
                "head_dim": head_dim,
                "hidden_size": hidden_size,
                "dtype": _dtype(fields, path),
            }
        )
    except ValidationError as error:
        raise ProfileError(f"{path}: {describe(error)}") from None


def _kv_names(fields: dict[str, Any]) -> tuple[str, ...]:
    # GLM keeps multi_query_group_num in its config even where it does not group its heads.
    grouped = fields.get("multi_query_attention", True)
    return (*KV_HEADS, GROUPED_KV_HEADS) if grouped else KV_HEADS


def _given(fields: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of the names that has a value; transformers writes null for a default."""
    return next((name for name in names if fields.get(name) is not None), None)


def _count(fields: dict[str, Any], names: tuple[str, ...], path: Path) -> int:
    name = _given(fields, names)
    if name is None:
        raise ProfileError(f"{path}: {names[0]} is missing (or {', '.join(names[1:])})")
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ProfileError(f"{path}: {name} must be a positive whole number, found {value!r}")
    return value


def _dtype(fields: dict[str, Any], path: Path) -> str:
    name = _given(fields, DTYPE)
    if name is None or fields[name] == "auto":
        return "bfloat16"
    dtype = str(fields[name]).removeprefix("torch.")
    if dtype not in ITEM_BYTES:
        raise ProfileError(f"{path}: {name} {dtype!r} is not one of {', '.join(ITEM_BYTES)}")
    return dtype
