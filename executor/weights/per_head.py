"""Which tensors of a checkpoint hold something for every head, and where in them it lies.

Only families whose attention is known are permuted: names alone do not say what a model computes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from executor.errors import WeightsError
from executor.weights.checkpoint import (
    CONFIG,
    Change,
    Checkpoint,
    Rows,
    Stored,
    open_checkpoint,
)
from executor.weights.execution_map import MAP_FILE
from executor.weights.slots import Layout, SlotLayout
from profiles.architecture import Architecture
from profiles.config_json import architecture_of
from profiles.files import read_json
from solver.plans import Plan

FAMILIES = (
    *("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
    *("gemma3", "gemma3_text", "phi3", "gpt_oss"),
)
"""Model types of configurations whose attention is permuted."""
ATTENTION = re.compile(
    r"(?:model|language_model\.model|model\.language_model)\.layers\.(\d+)\.self_attn\.(.+)"
)
PICTURES = ("vision_tower.", "model.vision_tower.")
"""What sees has heads of its own, of which no plan speaks."""
APART = ("q_proj", "k_proj", "v_proj")
FUSED = "qkv_proj"
OUT = "o_proj"
WHOLE = ("o_proj.bias", "rotary_emb.inv_freq")
"""Of no head, or of all alike."""
NORMS = ("q_norm.weight", "k_norm.weight")
FLOATS = ("F64", "F32", "F16", "BF16")
QUANTISED = (
    "quantised attention is not permuted, for its scales may cross heads; apply the plan to the "
    "unquantised model and quantise what comes out"
)
REFUSED = {
    r"(q|kv)_[ab]_(proj|layernorm)(\..*|_.*)": "multi-head latent attention (MLA) has no KV heads",
    r".*\.lora_.*": "LoRA adapters are not permuted: merge them into the model first",
    r".*\.(qweight|qzeros|scales|g_idx)": f"AWQ or GPTQ: {QUANTISED}",
    r".*(scale|scale_inv|_packed|_shape|\.weight\..*)": QUANTISED,
    r"(query_key_value|W_pack|c_attn|Wqkv|qkv)\..*": "a fused layout that is not known here",
}
"""Tensors of an attention layer that are known not to go by heads, and why."""


Part = Literal["q", "kv"]


@dataclass(frozen=True)
class PerHead:
    """A tensor with `width` rows of `axis` for every head: query heads, KV heads or, fused, the
    query heads', the keys' and the values' in turn."""

    layer: int
    axis: int
    width: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class PlannedModel:
    """A folder's model that a plan is for: its configuration, its shape, its checkpoint, and what
    of that goes by heads."""

    config: dict[str, Any]
    shape: Architecture
    source: Checkpoint
    tensors: Mapping[str, PerHead]


def model_of_plan(folder: Path, plan: Plan) -> PlannedModel:
    """The ordinary checkpoint in a folder; of its weights the headers are read.

    Raises WeightsError for another model than the plan's, one that carries a plan already, or whose
    heads cannot be moved, and ProfileError for a configuration that cannot be read.
    """
    if (folder / MAP_FILE).exists():
        raise WeightsError(f"{folder}: carries a plan already; apply --undo gives the model back")
    return planned_model(open_checkpoint(folder), config_of(folder), plan)


def planned_model(source: Checkpoint, config: dict[str, Any], plan: Plan) -> PlannedModel:
    """As `model_of_plan`, of a checkpoint and a configuration that are at hand."""
    shape = architecture_of(config, str(source.folder / CONFIG))
    for field in plan.architecture.differing(shape):
        of_plan, of_model = getattr(plan.architecture, field), getattr(shape, field)
        raise WeightsError(f"plan: is for {field} {of_plan}, but the model has {of_model}")
    return PlannedModel(config, shape, source, per_head_tensors(source, config, shape))


def config_of(folder: Path) -> dict[str, Any]:
    """A model's configuration. Raises WeightsError, or ProfileError where it cannot be read."""
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise WeightsError(f"{folder / CONFIG}: must be a JSON object")
    return config


def per_head_tensors(
    checkpoint: Checkpoint, config: Mapping[str, Any], shape: Architecture
) -> dict[str, PerHead]:
    """Every tensor of the attention layers that goes by heads.

    Raises WeightsError for a checkpoint that lacks one of them, or has one in a shape that its
    configuration does not say, and for all that cannot be permuted.
    """
    found: dict[str, PerHead] = {}
    layers: dict[int, set[str]] = {layer: set() for layer in range(shape.layers)}
    for name, stored in checkpoint.tensors.items():
        match = ATTENTION.fullmatch(name)
        if match is None:
            if "attn" in name and not name.startswith(PICTURES):
                raise WeightsError(
                    f"{stored.file}: {name}: attention beside the model's layers (MTP, speculative "
                    "decoding) is not permuted: leave it out"
                )
            continue
        layer, part = int(match[1]), match[2]
        if layer not in layers:
            raise WeightsError(
                f"{stored.file}: {name}: is beyond the plan's {shape.layers} layers: one more for "
                "speculative decoding (MTP) is not permuted: leave it out"
            )
        layers[layer].add(part)
        kept = _per_head(name, part, stored, layer, shape)
        if kept is not None:
            found[name] = kept
    family = config.get("model_type")
    if family not in FAMILIES:
        raise WeightsError(
            f"{checkpoint.folder}: model_type {family!r}: whether its heads may be permuted is not "
            f"known; known are {', '.join(FAMILIES)}"
        )
    for layer, parts in layers.items():
        names = (FUSED, OUT) if f"{FUSED}.weight" in parts else (*APART, OUT)
        for missing in (f"{each}.weight" for each in names if f"{each}.weight" not in parts):
            raise WeightsError(f"{checkpoint.folder}: layer {layer} has no {missing}")
        if family == "gpt_oss" and "sinks" not in parts:
            raise WeightsError(f"{checkpoint.folder}: layer {layer} has no sinks")
    return found


def placed(
    checkpoint: Checkpoint, tensors: Mapping[str, PerHead], layout: SlotLayout, shape: Architecture
) -> dict[str, Change]:
    """Every tensor with its heads in the slots of all ranks, zeros in those that hold nothing."""
    return {
        name: _change(checkpoint.tensors[name], tensor, _sources(tensor, layout, shape))
        for name, tensor in tensors.items()
    }


def taken_back(
    checkpoint: Checkpoint, tensors: Mapping[str, PerHead], layout: SlotLayout, shape: Architecture
) -> dict[str, Change]:
    """Every tensor of a placed checkpoint with the heads of the model of `shape` again."""
    changes = {}
    for name, tensor in tensors.items():
        sources = _sources(tensor, layout, shape)
        heads = range(sum(_count(part, shape) for part in tensor.parts))
        first = [sources.index(head) for head in heads]
        changes[name] = _change(checkpoint.tensors[name], tensor, list(first))
    return changes


def held(
    tensors: Mapping[str, PerHead], layout: Layout, shape: Architecture, rank: int
) -> dict[str, Rows]:
    """Of every tensor the rows of its axis that one rank holds."""
    found = {}
    for name, tensor in tensors.items():
        sources = _sources(tensor, layout, shape, [rank])
        starts = [None if head is None else head * tensor.width for head in sources]
        found[name] = Rows(tensor.axis, tensor.width, tuple(starts))
    return found


def _sources(
    tensor: PerHead, layout: Layout, shape: Architecture, ranks: Sequence[int] | None = None
) -> list[int | None]:
    """The head that each slot of a tensor holds, numbered through its parts: of some ranks, or of
    all."""
    found: list[int | None] = []
    begin = 0
    for part in tensor.parts:
        of_part = layout.heads if part == "q" else layout.groups
        slots = of_part(tensor.layer, ranks)
        found += [None if head is None else begin + head for head in slots]
        begin += _count(part, shape)
    return found


def _count(part: Part, shape: Architecture) -> int:
    return shape.query_heads if part == "q" else shape.kv_heads


def _change(stored: Stored, tensor: PerHead, sources: list[int | None]) -> Change:
    axis, width = tensor.axis, tensor.width
    after = list(stored.shape)
    after[axis] = len(sources) * width
    picked = torch.tensor([0 if source is None else source for source in sources])
    empty = torch.tensor([source is None for source in sources])

    def of(before: torch.Tensor) -> torch.Tensor:
        heads = before.reshape(*stored.shape[:axis], -1, width, *stored.shape[axis + 1 :])
        heads = heads.index_select(axis, picked)
        heads.movedim(axis, 0)[empty] = 0
        return heads.reshape(after)

    return Change(tuple(after), of)


def _per_head(
    name: str, part: str, stored: Stored, layer: int, shape: Architecture
) -> PerHead | None:
    """What a tensor of an attention layer holds for every head, None for one that stays."""
    width, hidden = shape.head_dim, shape.hidden_size
    q, kv = shape.query_heads * width, shape.kv_heads * width
    both: tuple[Part, ...] = ("q", "kv", "kv")
    known: dict[str, tuple[list[int], PerHead]] = {
        "sinks": ([shape.query_heads], PerHead(layer, 0, 1, ("q",))),
        f"{OUT}.weight": ([hidden, q], PerHead(layer, 1, width, ("q",))),
    }
    for projection, rows, parts in (
        ("q_proj", q, both[:1]),
        ("k_proj", kv, both[1:2]),
        ("v_proj", kv, both[2:]),
        (FUSED, q + 2 * kv, both),
    ):
        known[f"{projection}.weight"] = [rows, hidden], PerHead(layer, 0, width, parts)
        known[f"{projection}.bias"] = [rows], PerHead(layer, 0, width, parts)
    if part in known:
        expected, found = known[part]
        if stored.dtype not in FLOATS:
            raise WeightsError(f"{stored.file}: {name}: is of {stored.dtype}: {QUANTISED}")
        if list(stored.shape) != expected:
            raise WeightsError(
                f"{stored.file}: {name}: has the shape {list(stored.shape)}, but by its "
                f"configuration it must have {expected}"
            )
        return found
    if part in NORMS and stored.shape != (width,):
        raise WeightsError(
            f"{stored.file}: {name}: norms over all heads at once ({stored.shape[0]} numbers, a "
            f"head has {width}): other slots would change what every head is divided by"
        )
    if part in (*NORMS, *WHOLE):
        return None
    why = next((why for pattern, why in REFUSED.items() if re.fullmatch(pattern, part)), None)
    raise WeightsError(f"{stored.file}: {name}: {why or 'is not known here: does it go by heads?'}")
