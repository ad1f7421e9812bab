"""A plan written into a model's weights, and taken out of them again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from executor.errors import WeightsError
from executor.weights.check import Compared, compare
from executor.weights.checkpoint import (
    CONFIG,
    Change,
    Checkpoint,
    copy_others,
    new_folder,
    open_checkpoint,
    rewrite,
)
from executor.weights.execution_map import LAYOUT_FIELD, MAP_FILE, ExecutionMap, Original
from executor.weights.per_head import (
    config_of,
    model_of_plan,
    per_head_tensors,
    placed,
    planned_model,
    taken_back,
)
from executor.weights.slots import slots_of
from profiles.architecture import Architecture
from profiles.config_json import architecture_of
from profiles.time_left import Show
from solver.plans import Plan

HEADS = ("num_attention_heads", "num_key_value_heads", "head_dim")
BIASES = ("attention_bias", "mlp_bias")
DIVIDING = ("llama", "gemma3_text")
"""Model types whose configuration in transformers wants heads that divide the hidden size."""
MISTRAL = {
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "sliding_window": None,
}


@dataclass(frozen=True)
class Applied:
    """The map that was written, and what a check found."""

    map: ExecutionMap
    compared: Compared | None


def apply(folder: Path, plan: Plan, out: Path, check: bool, progress: Show) -> Applied:
    """Write the model in `folder` to `out` with every rank's heads in slots, as the plan has them.

    A model that carries a plan already is moved to this one: what it was is taken back and placed
    anew, tensor by tensor. With `check` both models are run and compared before `out` is there.
    Whatever goes wrong, nothing is left of it. Raises WeightsError, ShardError for shares that do
    not add to 1, and ProfileError for a configuration that cannot be read.
    """
    was = ExecutionMap.load(folder) if (folder / MAP_FILE).exists() else None
    back: dict[str, Change] = {}
    if was is None:
        model = model_of_plan(folder, plan)
        source = model.source
    else:
        source, back = _as_it_was(folder, was)
        config = json.loads(was.original.files[CONFIG])
        model = planned_model(_changed(source, back), config, plan)
    layout = slots_of(plan)
    changed = {**_new_config(model.config, layout.padded(model.shape)), LAYOUT_FIELD: layout.id}
    changes = placed(model.source, model.tensors, layout, model.shape)
    if back:
        changes = {name: back[name].then(change) for name, change in changes.items()}
    with new_folder(out) as temporary:
        copy_others(folder, temporary)
        checksum = rewrite(source, temporary, changes, back, progress)
        if was is not None:
            _check_original(folder, was, checksum)
        files = source.texts() if was is None else was.original.files
        original = Original(tensors_sha256=checksum, files=files)
        made = ExecutionMap.of(plan, layout, original=original)
        (temporary / CONFIG).write_text(json.dumps(changed, indent=2) + "\n")
        made.save(temporary)
        compared = None
        if check:
            progress(0, 1, "comparing both models")
            compared = compare(folder, was, temporary, made)
    return Applied(made, compared)


def undo(folder: Path, out: Path, progress: Show) -> ExecutionMap:
    """Write the model that a plan was applied to, to `out`: its tensors and configuration as they
    were, bit for bit.

    The map of the plan that was taken out. Raises WeightsError where they are not what they were,
    and leaves nothing then.
    """
    was = ExecutionMap.load(folder)
    source, changes = _as_it_was(folder, was)
    with new_folder(out) as temporary:
        copy_others(folder, temporary)
        (temporary / MAP_FILE).unlink()
        _check_original(folder, was, rewrite(source, temporary, changes, changes, progress))
        for name, text in was.original.files.items():
            (temporary / name).write_bytes(text.encode())
    return was


def _as_it_was(folder: Path, was: ExecutionMap) -> tuple[Checkpoint, dict[str, Change]]:
    """The checkpoint that a plan was written into, and what makes its tensors the model's again."""
    config = config_of(folder)
    expected = was.layout.padded(was.architecture)
    if expected.differing(architecture_of(config, str(folder / CONFIG))):
        raise WeightsError(f"{folder / CONFIG}: is not the one that {MAP_FILE} was written beside")
    source = open_checkpoint(folder)
    tensors = per_head_tensors(source, config, expected)
    return source, taken_back(source, tensors, was.layout, was.architecture)


def _changed(source: Checkpoint, changes: Mapping[str, Change]) -> Checkpoint:
    """The checkpoint with the shapes that its tensors are changed to."""
    return Checkpoint(
        source.folder,
        {
            name: replace(stored, shape=changes[name].shape) if name in changes else stored
            for name, stored in source.tensors.items()
        },
    )


def _check_original(folder: Path, was: ExecutionMap, checksum: str) -> None:
    if checksum != was.original.tensors_sha256:
        raise WeightsError(f"{folder}: its tensors are not those that the plan was written into")


def _new_config(config: dict[str, Any], shape: Architecture) -> dict[str, Any]:
    """The configuration with its new heads, in the part that speaks of the text.

    transformers takes a Llama or Gemma 3 only where the heads divide the hidden size, whatever
    head_dim says; without biases a Llama is a Mistral without a window, which it takes.
    """
    text = config.get("text_config")
    fields = text if isinstance(text, dict) else config
    changed = {
        **fields,
        **dict(zip(HEADS, (shape.query_heads, shape.kv_heads, shape.head_dim), strict=True)),
    }
    if shape.hidden_size % shape.query_heads and fields.get("model_type") in DIVIDING:
        if fields["model_type"] != "llama" or any(fields.get(bias) for bias in BIASES):
            raise WeightsError(
                f"plan: {shape.query_heads} query slots on all ranks; transformers takes a "
                f"{fields['model_type']} only where they divide its hidden_size "
                f"{shape.hidden_size}: plan with other --slots"
            )
        changed |= MISTRAL
    return {**config, "text_config": changed} if isinstance(text, dict) else changed
