"""The attention function that transformers calls in every layer under the name "hplb"."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch.nn.functional import pad
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from executor.engines.transformers.masks import Mask, make_mask
from executor.errors import AttentionError
from executor.inference.dense_policy import DensePolicy
from executor.inference.policy import LayerCall, Policy
from executor.inference.room import room_of
from executor.inference.trace import Trace

NAME = "hplb"

UNSUPPORTED = {
    "softcap": "logit softcapping (Gemma 2)",
    "position_bias": "a position bias (T5)",
    "cache": "continuous batching's paged cache",
    "cu_seq_lens_q": "packed sequences",
    "output_attentions": "attention weights as an output",
}
"""What a layer may pass that changes its result, by the argument's name."""


@dataclass(frozen=True, eq=False)
class Attachment:
    """What a model's layers attend by, where they count it, and what they did so before."""

    policy: Policy
    trace: Trace | None = None
    before: str = "eager"


attachments: WeakKeyDictionary[torch.nn.Module, Attachment] = WeakKeyDictionary()
"""Of every module of the models that a policy is attached to."""

_DENSE = Attachment(DensePolicy())


def register() -> None:
    """Make "hplb" known to transformers."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, make_mask)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    **features: object,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer, [sequences, new tokens, query_heads, head_dim], and no weights.

    query [sequences, query_heads, new tokens, head_dim]; key, value [sequences, kv_heads, tokens,
    head_dim]; s_aux [query_heads] are attention sinks. Every sequence is computed by itself and
    without its padding, whose rows are 0.
    Raises AttentionError for what the kernels do not compute.
    """
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    _check(module, query, key, value, dropout, causal, features)
    sequences, _, new, _ = query.shape
    if attention_mask is None:
        mask = Mask(key.shape[2], sliding_window, ((0, key.shape[2]),) * sequences)
    else:
        mask = Mask.unpacked(attention_mask)
    if key.shape[2] < mask.total_tokens or sequences != len(mask.spans):
        raise AttentionError(
            f"key: {sequences} sequences of {key.shape[2]} tokens; the mask was made for "
            f"{len(mask.spans)} of {mask.total_tokens}"
        )
    attached = attachments.get(module, _DENSE)
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    layer = module.layer_idx
    assert isinstance(layer, int)
    cached = mask.total_tokens - new
    room = room_of(key, value)
    out: list[torch.Tensor] = []
    for sequence, (first, end) in enumerate(mask.spans):
        rows = slice(max(first - cached, 0), end - cached)
        if rows.start >= rows.stop:
            out.append(query.new_zeros(new, query.shape[1], query.shape[3]))
            continue
        call = LayerCall(
            layer,
            _part(query[sequence], rows),
            _part(key[sequence], slice(first, end)),
            _part(value[sequence], slice(first, end)),
            scale,
            mask.window,
            None if room is None else room.sequence(sequence, first),
            sequence,
            mask.lengths,
            s_aux,
        )
        attended = attached.policy.attend(call)
        found = attended.out.transpose(0, 1)
        if rows != slice(0, new):
            found = pad(found, (0, 0, 0, 0, rows.start, new - rows.stop))
        out.append(found)
        if attached.trace is not None:
            attached.trace.add(layer, attended)
    return (out[0][None] if sequences == 1 else torch.stack(out)), None


def _part(x: torch.Tensor, tokens: slice) -> torch.Tensor:
    """Some tokens of x [heads, tokens, head_dim]; nothing is done for all of them."""
    return x if tokens.stop - tokens.start == x.shape[1] else x[:, tokens]


def _check(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float,
    causal: bool,
    features: dict[str, object],
) -> None:
    what = type(module).__name__
    for name, given in features.items():
        if name in UNSUPPORTED and given is not None and given is not False:
            raise AttentionError(
                f"{what}: hplb does not compute {UNSUPPORTED[name]}, argument {name}"
            )
    if not causal:
        raise AttentionError(f"{what}: hplb computes causal attention, and this layer's is not")
    if key.shape[3] != query.shape[3] or value.shape != key.shape:
        raise AttentionError(
            f"{what}: keys {list(key.shape)} and values {list(value.shape)} must be of one shape "
            f"with the queries' head_dim {query.shape[3]}"
        )
    if not isinstance(getattr(module, "layer_idx", None), int):
        raise AttentionError(f"{what}: has no layer_idx, so that its budgets are unknown")
    if dropout:
        raise AttentionError(f"{what}: hplb is for inference: dropout {dropout}; call model.eval()")
    if torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)):
        raise AttentionError(
            f"{what}: hplb is for inference and has no gradients: run under torch.no_grad()"
        )
