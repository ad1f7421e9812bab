"""Which plan this process serves, if any: found, compared with the weights and with other ranks."""

from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist
from vllm.config import VllmConfig, get_current_vllm_config_or_none
from vllm.distributed.parallel_state import get_tp_group
from vllm.logger import init_logger

from executor.engines.vllm.metrics import RankReport
from executor.errors import WeightsError
from executor.weights.execution_map import LAYOUT_FIELD, MAP_FILE, ExecutionMap

NAMED = "hplb_plan"
"""The key of `--additional-config` that names another map than the one beside the weights."""
logger = init_logger("vllm.hplb")


@dataclass(frozen=True, eq=False)
class Serving:
    """A map and the ranks of it whose slots this process has."""

    map: ExecutionMap
    held: tuple[int, ...]
    report: RankReport


_served: dict[tuple[str, str, int], Serving | None] = {}
"""By the model's folder, the map that was named, and this process' rank."""


def serving(config: VllmConfig) -> Serving | None:
    """What a model of this configuration is served by, None where it has no map.

    Asked for the first time under tensor parallelism, all ranks hold what they found against each
    other: ranks of unlike plans would add up to wrong text and no error. Raises WeightsError for a
    map that is not these weights', that this engine cannot carry out, or that another rank lacks.
    """
    model = config.model_config
    if model is None:
        return None
    named = str((config.additional_config or {}).get(NAMED, ""))
    key = model.model, named, get_tp_group().rank_in_group
    if key not in _served:
        _served[key] = _serve(config, Path(model.model), named)
    return _served[key]


def planned() -> bool:
    """Whether the model that is being built has a map."""
    config = get_current_vllm_config_or_none()
    return config is not None and serving(config) is not None


def _serve(config: VllmConfig, folder: Path, named: str) -> Serving | None:
    parallel, rank = config.parallel_config, get_tp_group().rank_in_group
    ranks = parallel.tensor_parallel_size
    made, fault = None, None
    try:
        made = _found(folder, named)
        if made is not None:
            _check(made, config)
    except WeightsError as error:
        fault = error
    _compare(made, fault, rank, ranks)
    if fault is not None:
        raise fault
    if made is None:
        return None
    held = (rank,) if ranks > 1 else tuple(range(made.layout.ranks))
    logger.info(
        "HPLB: plan %s, layout %s, map %s; rank %d of %d has the slots of %s of its ranks",
        made.plan[:12],
        made.layout.id[:12],
        made.hash[:12],
        rank,
        ranks,
        ", ".join(map(str, held)),
    )
    return Serving(made, held, RankReport(made, held, parallel.data_parallel_index, rank))


def _found(folder: Path, named: str) -> ExecutionMap | None:
    if named:
        return ExecutionMap.load(Path(named))
    return ExecutionMap.load(folder) if (folder / MAP_FILE).is_file() else None


def _check(made: ExecutionMap, config: VllmConfig) -> None:
    slots, text = made.layout.padded(made.architecture), config.model_config.hf_text_config
    heads, layers = text.num_attention_heads, text.num_hidden_layers
    if (heads, layers) != (slots.query_heads, slots.layers):
        raise WeightsError(
            f"HPLB: plan {made.plan[:12]} has {slots.query_heads} query slots in {slots.layers} "
            f"layers, the model {heads} heads in {layers}: it is not these weights' plan"
        )
    layout = getattr(config.model_config.hf_config, LAYOUT_FIELD, None)
    if layout != made.layout.id:
        raise WeightsError(
            f"HPLB: plan {made.plan[:12]} is for weights of the layout {made.layout.id[:12]}, "
            f"these have {str(layout)[:12]} ({LAYOUT_FIELD} in config.json): serve the "
            "folder that `hplb apply` wrote with this plan"
        )
    ranks, unserved = config.parallel_config.tensor_parallel_size, _unserved(config)
    if ranks not in (1, made.layout.ranks):
        raise WeightsError(
            f"HPLB: plan {made.plan[:12]} is for {made.layout.ranks} ranks: "
            f"--tensor-parallel-size {made.layout.ranks} or 1, not {ranks}"
        )
    if unserved is not None:
        raise WeightsError(f"HPLB: plan {made.plan[:12]} cannot be served with {unserved}")


def _unserved(config: VllmConfig) -> str | None:
    """What this engine was asked for that the plan's attention does not know."""
    cache_type, model = config.cache_config.cache_dtype, str(config.model_config.dtype)
    if cache_type not in ("auto", model.removeprefix("torch.")):
        return f"--kv-cache-dtype {cache_type}"
    if config.parallel_config.decode_context_parallel_size > 1:
        return "--decode-context-parallel-size"
    if config.attention_config.use_non_causal:
        return "attention to later tokens: its lists are causal"
    if config.kv_transfer_config is not None:
        return "--kv-transfer-config: its KV heads are slots of the map"
    return None


def _compare(made: ExecutionMap | None, fault: WeightsError | None, rank: int, ranks: int) -> None:
    """Raise WeightsError where another rank found another map, or none, or a fault."""
    if ranks == 1:
        return
    mine = str(fault) if fault is not None else None if made is None else made.hash
    all_found: list[str | None] = [None] * ranks
    dist.all_gather_object(all_found, mine, group=get_tp_group().cpu_group)
    for other, theirs in enumerate(all_found):
        if theirs != mine and fault is None:
            raise WeightsError(
                f"HPLB: rank {other} has the map {str(theirs)[:64]}, rank {rank} {str(mine)[:12]}: "
                "all ranks must load one checkpoint"
            )
