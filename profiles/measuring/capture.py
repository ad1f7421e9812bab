"""A model's attention, layer by layer, through transformers' own attention interface.

A model loaded with `attn_implementation=NAME` computes its attention here, densely and exactly as
it would, and whoever is `watching` sees every layer's q, k and v. Nothing of its code is replaced.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from profiles.errors import MeasuringError
from profiles.measuring.layer_attention import LayerAttention, dense
from profiles.measuring.residual_stream import output_weight

NAME = "hplb_measuring"
Watcher = Callable[[LayerAttention, torch.Tensor], None]
"""Called with every layer's attention and its output [heads, tokens, head_dim]."""
_watchers: list[Watcher] = []


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Show `watcher` every layer that a model computes meanwhile, in one thread."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function, from [1, heads, tokens, head_dim] to [1, tokens, heads, _].

    Raises MeasuringError for attention that is more than causal softmax.
    """
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    for name in ("s_aux", "position_bias", "head_mask"):
        if others.get(name) is not None:
            raise MeasuringError(
                f"layer {layer}: attention with {name} (learned sinks or biases) is not measured: "
                "its rows are no softmax over keys alone"
            )
    if attention_mask is not None or not getattr(module, "is_causal", True):
        raise MeasuringError(f"layer {layer}: only causal attention without padding is measured")
    if query.shape[0] != 1 or query.shape[2] != key.shape[2]:
        raise MeasuringError(f"layer {layer}: one whole prompt at a time, without a cache")
    call = LayerAttention(
        layer,
        query[0],
        key[0],
        value[0],
        query.shape[3] ** -0.5 if scaling is None else scaling,
        sliding_window,
        softcap,
        output_weight(module),
    )
    out = dense(call)
    for watcher in _watchers:
        watcher(call, out)
    return out.transpose(0, 1)[None].contiguous(), None


def no_mask(
    *, kv_length: int, mask_function: Callable[..., torch.Tensor], **others: Any
) -> torch.Tensor | None:
    """transformers' mask function: none at all, `attention` sees to it; refuses other masks.

    A few rows of the mask that the model wants are compared with the causal or sliding one.
    """
    size = others.get("local_size")
    edges = {0, kv_length - 1, *(() if size is None else (size - 1, size))}
    row = torch.tensor(sorted(edge for edge in edges if edge < kv_length))[:, None]
    key = torch.arange(kv_length)[None]
    if others.get("device") is not None:
        row, key = row.to(others["device"]), key.to(others["device"])
    wanted = (key <= row) if size is None else (key <= row) & (key > row - size)
    if not torch.equal(mask_function(0, 0, row, key).expand_as(wanted), wanted):
        raise MeasuringError("the model's mask is neither causal nor a sliding window")
    return None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, no_mask)
