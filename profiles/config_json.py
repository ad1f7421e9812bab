"""A model's architecture from the `config.json` that transformers keeps beside its weights.

What a configuration says of KV heads, kinds of layers or windows in a way that is not known here
is asked for: a default in its place would be another model's architecture.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from profiles.architecture import ITEM_BYTES, Architecture
from profiles.config_words import (
    about_kv_heads,
    about_layers,
    about_some_layers,
    says_nothing,
    with_attention,
)
from profiles.errors import ProfileError, describe
from profiles.files import read_json

LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
QUERY_HEADS = ("num_attention_heads", "n_head", "n_heads")
KV_HEADS = (
    "num_key_value_heads",
    "num_kv_heads",
    "n_head_kv",
    "n_kv_heads",
    "n_heads_kv",
    "num_heads_kv",
    "kv_num_heads",
)
GROUPED_KV_HEADS = "multi_query_group_num"
SHARED = ("multi_query", "multi_query_attention")
"""Flags of one KV head for all query heads, or of the groups counted beside them."""
LATENT = "kv_lora_rank"
"""Multi-head latent attention (MLA): one compressed key and value for all heads."""
HEAD_DIM = ("head_dim", "kv_channels")
HIDDEN_SIZE = ("hidden_size", "n_embd", "d_model")
DTYPE = ("dtype", "torch_dtype")

MLP_SIZE = ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner")
EXPERT_SIZE = "moe_intermediate_size"
EXPERTS = ("num_local_experts", "num_experts")
EXPERTS_PER_TOKEN = ("num_experts_per_tok", "experts_per_token")
UNLIKE_MLPS = (
    "shared_expert_intermediate_size",
    "n_shared_experts",
    "num_shared_experts",
    "first_k_dense_replace",
    "mlp_only_layers",
    "interleave_moe_layer_step",
)
"""What gives some layers another MLP than the others, or some tokens another expert."""
MATRICES = {
    "llama": 3,
    "mistral": 3,
    "mixtral": 3,
    "qwen2": 3,
    "qwen2_moe": 3,
    "qwen3": 3,
    "qwen3_moe": 3,
    "gemma": 3,
    "gemma2": 3,
    "gemma3": 3,
    "gemma3_text": 3,
    "phi3": 3,
    "gpt_oss": 3,
    "cohere": 3,
    "cohere2": 3,
    "glm": 3,
    "glm4": 3,
    "chatglm": 3,
    "granite": 3,
    "olmo": 3,
    "olmo2": 3,
    "olmoe": 3,
    "smollm3": 3,
    "internlm2": 3,
    "stablelm": 3,
    "gpt2": 2,
    "gpt_bigcode": 2,
    "gpt_neox": 2,
    "gptj": 2,
    "falcon": 2,
    "opt": 2,
    "phi": 2,
    "bloom": 2,
    "starcoder2": 2,
    "nemotron": 2,
}
"""Matrices of a layer's MLP by model type: a gate beside the two, or none."""

WINDOWS = ("sliding_window", "sliding_window_size", "window_size")
LAYER_KINDS = "layer_types"
BESIDE_WINDOWS = (
    "use_sliding_window",
    "max_window_layers",
    "sliding_window_pattern",
    "_sliding_window_pattern",
)
FULL, SLIDING = "full_attention", "sliding_attention"
FULL_EVERY: dict[str, int | None] = {
    "mistral": None,
    "mixtral": None,
    "phi3": None,
    "starcoder2": None,
    "gemma2": 2,
    "gpt_oss": 2,
    "cohere2": 4,
    "gemma3": 6,
    "gemma3_text": 6,
}
"""Which layers of a model type see everything where its file does not say: every n-th, or none."""


def architecture_from_config(path: Path) -> Architecture:
    """Read layers, heads, widths and windows from a `config.json`. Raises ProfileError."""
    config = read_json(path)
    if not isinstance(config, dict):
        raise ProfileError(f"{path}: must be a JSON object, as transformers' config.json is")
    return architecture_of(config, str(path))


def architecture_of(config: Mapping[str, Any], where: str) -> Architecture:
    """The architecture that a configuration's fields state; errors begin with `where` they stood.

    KV heads default to the attention heads where nothing speaks of them, and head_dim to
    hidden_size / heads, as in transformers; a multi-modal model's figures are its `text_config`'s.
    Raises ProfileError.
    """
    text = config.get("text_config")
    nested = text if isinstance(text, dict) else {}
    # Beside a text_config stand the windows and layers of encoders and projectors.
    outer = {name: value for name, value in config.items() if not (nested and about_layers(name))}
    fields = {**outer, **{name: value for name, value in nested.items() if value is not None}}
    if fields.get(LATENT) is not None:
        raise ProfileError(
            f"{where}: {LATENT}: multi-head latent attention (MLA) has no KV heads as profiles "
            "know them"
        )
    heads = _count(fields, QUERY_HEADS, where)
    hidden_size = _count(fields, HIDDEN_SIZE, where)
    if _given(fields, HEAD_DIM):
        head_dim = _count(fields, HEAD_DIM, where)
    elif hidden_size % heads == 0:
        head_dim = hidden_size // heads
    else:
        raise ProfileError(
            f"{where}: head_dim is missing, and hidden_size {hidden_size} is no multiple of "
            f"{heads} attention heads"
        )
    layers = _count(fields, LAYERS, where)
    _refuse_unlike(fields, layers, where)
    try:
        return Architecture.model_validate(
            {
                "layers": layers,
                "query_heads": heads,
                "kv_heads": _kv_heads(fields, heads, where),
                "head_dim": head_dim,
                "hidden_size": hidden_size,
                "dtype": _dtype(fields, where),
                "windows": _windows(fields, layers, where),
                **_mlp(fields),
            }
        )
    except ValidationError as error:
        raise ProfileError(f"{where}: {describe(error)}") from None


def _kv_heads(fields: Mapping[str, Any], heads: int, where: str) -> int:
    known = {*KV_HEADS, *SHARED, GROUPED_KV_HEADS}
    shared = next((name for name in SHARED if fields.get(name) is not None), None)
    if shared is not None and not isinstance(fields[shared], bool):
        raise ProfileError(f"{where}: {shared} must be true or false, found {fields[shared]!r}")
    # Falcon's older layout has one KV head whatever it counts beside the flag.
    if shared == "multi_query" and fields[shared] and not fields.get("new_decoder_architecture"):
        return 1
    # GLM keeps multi_query_group_num in its config even where it does not group its heads.
    grouped = shared is None or fields[shared]
    names = (*KV_HEADS, GROUPED_KV_HEADS) if grouped else KV_HEADS
    if _given(fields, names):
        return _count(fields, names, where)
    unknown = [
        name
        for name, value in with_attention(fields).items()
        if name not in known and about_kv_heads(name) and not says_nothing(value)
    ]
    if unknown or (shared is not None and fields[shared]):
        raise ProfileError(
            f"{where}: {', '.join(unknown) or shared} speaks of KV heads, but not in a way known "
            f"here; say how many there are as {KV_HEADS[0]}"
        )
    return heads


def _refuse_unlike(fields: Mapping[str, Any], layers: int, where: str) -> None:
    """Raise ProfileError for what makes layers unlike each other in a way not known here."""
    known = {LAYER_KINDS, *WINDOWS, *BESIDE_WINDOWS}
    stated = fields.get(LAYER_KINDS) is not None
    unknown = [
        name
        for name, value in with_attention(fields).items()
        if name not in known
        and (about_some_layers(name) or (about_layers(name) and not stated))
        and not says_nothing(value)
    ]
    if unknown:
        raise ProfileError(
            f"{where}: {', '.join(unknown)} speaks of kinds of layers or windows, but not in a way "
            f"known here. Profiles know layers of {FULL} and {SLIDING}, of as many heads each: say "
            f"so as {LAYER_KINDS}, {layers} of them, and {WINDOWS[0]}"
        )


def _windows(fields: Mapping[str, Any], layers: int, where: str) -> list[int | None]:
    """How far every layer sees, or nothing where all see everything."""
    kinds = fields.get(LAYER_KINDS)
    if kinds is not None:
        return _windows_of_kinds(fields, kinds, layers, where)
    given = tuple(name for name in WINDOWS if not says_nothing(fields.get(name)))
    if not given or fields.get("use_sliding_window") is False:
        return []
    window = _count(fields, given, where)
    first_sliding = fields.get("max_window_layers")
    if fields.get("use_sliding_window") and isinstance(first_sliding, int):
        return [None if layer < first_sliding else window for layer in range(layers)]
    if _given(fields, ("sliding_window_pattern",)):
        return alternating(layers, window, _count(fields, ("sliding_window_pattern",), where))
    if fields.get("model_type") in FULL_EVERY:
        return alternating(layers, window, FULL_EVERY[fields["model_type"]])
    raise ProfileError(
        f"{where}: {given[0]} {window}, but not which layers it holds for; say so as "
        f"{LAYER_KINDS}, {layers} of {FULL} or {SLIDING}"
    )


def alternating(layers: int, window: int, full_every: int | None) -> list[int | None]:
    """Windows of `layers`, of which every `full_every`-th sees everything.

    >>> alternating(6, 128, 3)
    [128, 128, None, 128, 128, None]
    """
    return [
        None if full_every is not None and (layer + 1) % full_every == 0 else window
        for layer in range(layers)
    ]


def _windows_of_kinds(
    fields: Mapping[str, Any], kinds: Any, layers: int, where: str
) -> list[int | None]:
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise ProfileError(f"{where}: {LAYER_KINDS} must be a list of one kind for {layers} layers")
    unknown = next((kind for kind in kinds if kind not in (FULL, SLIDING)), None)
    if unknown is not None:
        raise ProfileError(
            f"{where}: layer {kinds.index(unknown)} is of {unknown!r}; profiles know layers of "
            f"{FULL} and {SLIDING}"
        )
    if SLIDING not in kinds:
        return []
    window = _count(fields, WINDOWS, where)
    return [window if kind == SLIDING else None for kind in kinds]


def _mlp(fields: Mapping[str, Any]) -> dict[str, int]:
    """The MLP of every layer; nothing where the file does not tell, or layers differ in it.

    Nothing that is placed depends on it, so that what is not known is left open, never assumed.
    """
    matrices = MATRICES.get(str(fields.get("model_type")))
    unlike = any(fields.get(name) for name in UNLIKE_MLPS)
    if matrices is None or unlike or fields.get("decoder_sparse_step") not in (None, 1):
        return {}
    experts = _given(fields, EXPERTS)
    sizes = MLP_SIZE if experts is None else (EXPERT_SIZE, *MLP_SIZE)
    names = {"mlp_size": _given(fields, sizes)}
    if experts is not None:
        names |= {"experts": experts, "experts_per_token": _given(fields, EXPERTS_PER_TOKEN)}
    found = {field: fields[name] for field, name in names.items() if name is not None}
    if len(found) < len(names) or not all(type(n) is int and n > 0 for n in found.values()):
        return {}
    return {"mlp_matrices": matrices, **found}


def _given(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of the names that has a value; transformers writes null for a default."""
    return next((name for name in names if fields.get(name) is not None), None)


def _count(fields: Mapping[str, Any], names: tuple[str, ...], where: str) -> int:
    name = _given(fields, names)
    if name is None:
        instead = f" (or {', '.join(names[1:])})" if names[1:] else ""
        raise ProfileError(f"{where}: {names[0]} is missing{instead}")
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ProfileError(f"{where}: {name} must be a positive whole number, found {value!r}")
    return value


def _dtype(fields: Mapping[str, Any], where: str) -> str:
    name = _given(fields, DTYPE)
    if name is None or fields[name] == "auto":
        return "bfloat16"
    dtype = str(fields[name]).removeprefix("torch.")
    if dtype not in ITEM_BYTES:
        raise ProfileError(f"{where}: {name} {dtype!r} is not one of {', '.join(ITEM_BYTES)}")
    return dtype
