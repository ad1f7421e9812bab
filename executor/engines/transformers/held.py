"""transformers' tensor parallelism by any plan: every rank has the heads that it computes, no more.

A style of transformers cuts a tensor into equal parts. Here a rank's part of a tensor that goes by
heads is given by its shape; attention is this rank's heads, and the ranks' output projections add
up to the model's. What a plan has no say in is as the model's own `tp_plan` has it.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from transformers.integrations.tensor_parallel import (
    ALL_PARALLEL_STYLES,
    TensorParallelLayer,
    replace_layer_number_by_wildcard,
)

from executor.weights.per_head import FUSED, OUT
from executor.weights.slots import Layout


def plan_of_parts(shapes: Mapping[str, list[int]], layout: Layout, rank: int) -> dict[str, str]:
    """The `tp_plan` for tensors of these names, whose parts on this rank have these shapes.

    Its styles are those of the model that is loaded next in this process.
    """
    styles: Any = ALL_PARALLEL_STYLES
    styles.register("hplb_held", Held(shapes))
    styles.register("hplb_added", Added(shapes))
    styles.register("hplb_fused", Fused(layout, rank))
    found = {}
    for name in shapes:
        module, _, parameter = replace_layer_number_by_wildcard(name).rpartition(".")
        if parameter not in ("weight", "bias"):
            found[f"{module}.{parameter}"] = "hplb_held"
        else:
            found[module] = "hplb_added" if module.endswith(OUT) else "hplb_held"
        if module.endswith(FUSED):
            found[module.rpartition(".")[0]] = "hplb_fused"
    return found


class Held(TensorParallelLayer):
    """Rows of this rank's heads. Every rank has the whole input."""

    def __init__(self, shapes: Mapping[str, list[int]]) -> None:
        self._shapes = shapes
        self._name = ""

    def validate_param(self, *_: object, parameter_name: str | None = None) -> None:
        """Keep the parameter's whole name, which `shard_param`, called next, is not told."""
        self._name = parameter_name or ""

    def shard_param(self, module: torch.nn.Module, param: str, _: object) -> None:
        """Make room for the part in place of the whole."""
        shape = self._shapes.get(self._name)
        whole = module._parameters[param]
        if shape is not None and whole is not None:
            part = torch.empty(shape, dtype=whole.dtype, device=whole.device)
            module._parameters[param] = torch.nn.Parameter(part, requires_grad=False)


class Added(Held):
    """Columns of this rank's heads: outputs are added up over the ranks, and the bias once."""

    @contextmanager
    def context_around_forward(self, module: torch.nn.Module, _: object) -> Iterator[None]:
        bias, module._parameters["bias"] = module._parameters["bias"], None
        try:
            yield
        finally:
            module._parameters["bias"] = bias

    def transform_output_post_forward(
        self, module: torch.nn.Module, output: torch.Tensor, mesh: Any
    ) -> torch.Tensor:
        dist.all_reduce(output, group=mesh.get_group())
        bias = module._parameters["bias"]
        return output if bias is None else output + bias


class Fused(TensorParallelLayer):
    """Attention that cuts a projection of queries, keys and values by its numbers of heads
    (Phi-3): it is told those of this rank and layer."""

    def __init__(self, layout: Layout, rank: int) -> None:
        self._layout, self._ranks = layout, [rank]

    def install_forward(self, module: Any, _: object) -> Any:
        layer = module.layer_idx
        module.config = copy.copy(module.config)
        module.config.num_attention_heads = len(self._layout.heads(layer, self._ranks))
        module.num_key_value_heads = len(self._layout.groups(layer, self._ranks))
        return module
