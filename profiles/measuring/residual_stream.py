"""What comes into a model's layers: the residual stream that their attention is added to."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

Stream = dict[int, torch.Tensor]
"""The residual stream [tokens, hidden] by layer."""


@contextmanager
def residual_stream(model: torch.nn.Module) -> Iterator[Stream]:
    """Show what comes into the layer being computed while `model` runs on one prompt.

    No other is kept, so that memory does not grow with the layers. A layer is the module that holds
    an attention module, which transformers numbers (`layer_idx`).
    """
    seen: Stream = {}

    def keep(layer: int, _module: torch.nn.Module, given: tuple[Any, ...], named: Any) -> None:
        hidden = given[0] if given else named["hidden_states"]
        seen.clear()
        seen[layer] = hidden.detach()[0]

    handles = []
    for module in model.modules():
        for child in module.children():
            layer = getattr(child, "layer_idx", None)
            if isinstance(layer, int) and output_weight(child) is not None:
                hook = partial(keep, layer)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def output_weight(attention: torch.nn.Module) -> torch.Tensor | None:
    """The weight [hidden, heads * head_dim] of an attention's output projection, where found."""
    for name in ("o_proj", "out_proj", "dense", "wo"):
        projection = getattr(attention, name, None)
        if isinstance(projection, torch.nn.Linear):
            return projection.weight.detach()
    return None
