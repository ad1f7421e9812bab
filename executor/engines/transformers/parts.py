"""This rank's part of a checkpoint: of one with a plan in it, or by a plan of any other."""

from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.utils import GENERATION_CONFIG_NAME

from executor.engines.transformers.held import plan_of_parts
from executor.engines.transformers.interface import NAME
from executor.engines.transformers.slots import rank_policy
from executor.errors import AttentionError
from executor.inference.slot_policy import SlotPolicy
from executor.weights.checkpoint import parts
from executor.weights.execution_map import HeadMap
from executor.weights.per_head import PlannedModel, held, model_of_plan
from executor.weights.slots import unpadded
from solver.plans import Plan


def load_part(folder: Path) -> PreTrainedModel:
    """By transformers' own tensor parallelism. Raises AttentionError for a model whose attention
    that leaves whole on every rank."""
    model = _loaded(AutoModelForCausalLM, folder, "auto", use_safetensors=True)
    styles = {style for name, style in (model.tp_plan or {}).items() if "self_attn" in name}
    if dist.get_world_size() > 1 and "colwise" not in styles:
        raise AttentionError(
            f"{folder}: transformers has all heads of {type(model).__name__} on every rank: a plan "
            "without --slots places them, on the model as it was"
        )
    return model


def load_held(folder: Path, plan: Plan) -> tuple[PreTrainedModel, SlotPolicy]:
    """What a plan has this rank compute of the ordinary checkpoint in `folder`, and no more.

    Any plan is carried out so: numbers of heads may differ by rank and layer, a KV group is on all
    ranks that compute a head of it, a head on all that compute rows of it. Of tensors that go by
    heads this rank reads its own. The model is right under the policy alone: attach it. Raises
    AttentionError, WeightsError and ProfileError as `model_to_hold` does.
    """
    planned = model_to_hold(folder, plan)
    if not dist.is_initialized():
        raise AttentionError(f"{folder}: a rank loads its part once torch.distributed has begun")
    made, rank = HeadMap.of(plan, unpadded(plan)), dist.get_rank()
    policy = rank_policy(made, f"plan {plan.id[:12]}")
    rows = held(planned.tensors, made.layout, planned.shape, rank)
    with parts(planned.source, rows) as tensors:
        shapes = {name: tensors[name].get_shape() for name in rows}
        tp_plan = plan_of_parts(shapes, made.layout, rank)
        options = {
            "config": AutoConfig.from_pretrained(folder, local_files_only=True),
            "state_dict": tensors,
        }
        if (folder / GENERATION_CONFIG_NAME).is_file():
            options["generation_config"] = GenerationConfig.from_pretrained(folder)
        # AutoModelForCausalLM copies its arguments, and slices of files cannot be copied.
        kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(options["config"])]
        return _loaded(kind, None, tp_plan, **options), policy


def model_to_hold(folder: Path, plan: Plan) -> PlannedModel:
    """The model that ranks may hold a plan's parts of; of its weights the headers are read.

    Raises AttentionError for one that has other parts than text, and WeightsError and ProfileError
    as `model_of_plan` does.
    """
    planned = model_of_plan(folder, plan)
    if "text_config" in planned.config:
        raise AttentionError(
            f"{folder}: has other parts than text: hplb attends for its language model alone, "
            "saved by itself"
        )
    return planned


def _loaded(
    kind: Any, folder: Path | None, tp_plan: dict[str, str] | Literal["auto"], **options: Any
) -> PreTrainedModel:
    model = kind.from_pretrained(
        folder,
        local_files_only=True,
        dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
        distributed_config=DistributedConfig(tp_size=dist.get_world_size(), tp_plan=tp_plan),
        attn_implementation=NAME,
        **options,
    )
    part: PreTrainedModel = model.eval().requires_grad_(False)
    return part
