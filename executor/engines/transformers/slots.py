"""A checkpoint with a plan in it, under transformers' own tensor parallelism or in one process."""

from pathlib import Path

import torch.distributed as dist
from transformers import PreTrainedModel

from executor.engines.transformers.attach import attach
from executor.errors import AttentionError
from executor.inference.slot_policy import SlotPolicy
from executor.inference.trace import Trace
from executor.weights.execution_map import ExecutionMap, HeadMap


def attach_slots(model: PreTrainedModel, folder: Path, *, backend: str = "auto") -> Trace:
    """Make a model that was loaded from `folder` attend by the map there, as `slot_policy` has it.

    Raises AttentionError, and WeightsError for a folder without a map.
    """
    return attach(model, slot_policy(model, folder, backend=backend))


def slot_policy(model: PreTrainedModel, folder: Path, *, backend: str = "auto") -> SlotPolicy:
    """What this process computes of a model that was loaded from `folder`, as `rank_policy` has it.

    Raises AttentionError, and WeightsError for a folder without a map.
    """
    made = ExecutionMap.load(folder)
    slots = made.layout.padded(made.architecture).query_heads
    found = model.config.get_text_config().num_attention_heads
    if found != slots:
        raise AttentionError(f"{folder}: its map has {slots} query slots, the model {found} heads")
    return rank_policy(made, str(folder), backend=backend)


def rank_policy(made: HeadMap, what: str, *, backend: str = "auto") -> SlotPolicy:
    """What this process computes by a map; `what` it is of, errors say.

    Where torch.distributed has begun, its ranks are the map's, and hold their maps' hashes against
    each other first: ranks of unlike plans would add up to wrong text and no error. Else this
    process has all slots. Raises AttentionError.
    """
    ranks = list(range(made.layout.ranks))
    if dist.is_initialized():
        if dist.get_world_size() != len(ranks):
            raise AttentionError(
                f"{what}: its map is for {len(ranks)} ranks; there are {dist.get_world_size()}"
            )
        hashes: list[str | None] = [None] * len(ranks)
        dist.all_gather_object(hashes, made.hash)
        for rank, theirs in enumerate(hashes):
            if theirs != made.hash:
                raise AttentionError(
                    f"{what}: rank {rank} has the layout {str(theirs)[:12]}, rank "
                    f"{dist.get_rank()} {made.hash[:12]}: all ranks must have one plan"
                )
        ranks = [dist.get_rank()]
    return SlotPolicy(made, ranks, backend=backend)
