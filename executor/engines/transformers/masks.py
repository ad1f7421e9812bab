"""What a model's mask comes down to: causality, perhaps a window, and padding at a sequence's ends.

transformers asks for a mask once a forward pass and hands it to every layer. Here it is four
numbers a sequence instead of [queries, keys].
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from transformers.masking_utils import causal_mask_function

from executor.errors import AttentionError

MaskFunction = Callable[..., Any]
"""Whether (sequence, head, query, key) is seen: positions are tensors that broadcast."""


OF_MASK = "hplb_mask"


@dataclass(frozen=True)
class Mask:
    """Keys 0..total_tokens - 1 are filled, padding included, and the new tokens' come last.

    A row sees the keys up to its own, or only the last `window` of them. `spans` are every
    sequence's real tokens [first, end) among the keys.
    """

    total_tokens: int
    window: int | None
    spans: tuple[tuple[int, int], ...]

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Every sequence's real tokens, counted."""
        return tuple(end - first for first, end in self.spans)

    def packed(self) -> torch.Tensor:
        """As int64 [sequences, 1, 1, 4]: transformers passes a mask of four dimensions on as it is.

        A sequence's numbers are total_tokens, the window or 0, first and end.
        """
        table = [(self.total_tokens, self.window or 0, *span) for span in self.spans]
        found = torch.tensor(table)[:, None, None]
        # Layers are handed the very tensor, and need not read it again.
        setattr(found, OF_MASK, self)
        return found

    @classmethod
    def unpacked(cls, mask: torch.Tensor) -> Self:
        """The mask that `packed` made the tensor of. Raises AttentionError for any other."""
        known = getattr(mask, OF_MASK, None)
        if isinstance(known, cls):
            return known
        if mask.dtype != torch.int64 or mask.shape[1:] != (1, 1, 4):
            raise AttentionError(
                f"attention_mask: {mask.dtype} of shape {list(mask.shape)}; hplb takes a mask of "
                "[sequences, tokens] that says which are padding"
            )
        rows = mask[:, 0, 0].tolist()
        total, window = rows[0][:2]
        return cls(total, window or None, tuple((first, end) for _, _, first, end in rows))


def make_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,  # noqa: ARG001 (a static cache's room, filled or not)
    q_offset: int | torch.Tensor = 0,
    kv_offset: int = 0,
    mask_function: MaskFunction = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    use_vmap: bool = False,
    **_: object,
) -> torch.Tensor:
    """The mask of a forward pass, packed; called by transformers (`AttentionMaskInterface`).

    The new tokens stand at q_offset, the first key at kv_offset; attention_mask [sequences, tokens]
    is False for padding; local_size is a window's or chunk's. Waits for the device where a mask of
    padding was given. Raises AttentionError for any mask that is neither causal nor a sliding
    window, and for padding in the middle of a sequence.
    """
    end = int(q_offset) + q_length
    total = end - int(kv_offset)
    window = None
    if mask_function is not causal_mask_function:
        first_row = max(int(q_offset), end - 2)
        keys = torch.arange(int(kv_offset), end)
        rows = torch.arange(first_row, end)
        if local_size is None or use_vmap or not _slides(mask_function, local_size, rows, keys):
            raise AttentionError(
                "attention mask: hplb computes causal and sliding-window attention; packed "
                'sequences, chunked and bidirectional attention need "sdpa" or "eager"'
            )
        window = local_size
    if attention_mask is None:
        return Mask(total, window, ((0, total),) * batch_size).packed()
    real = attention_mask[:, kv_offset : kv_offset + total].bool()
    if real.shape != (batch_size, total):
        raise AttentionError(
            f"attention_mask: shape {list(attention_mask.shape)} must be [{batch_size} sequences, "
            f"{end} tokens], cached ones included"
        )
    return Mask(total, window, _spans(real)).packed()


def _slides(
    mask_function: MaskFunction, window: int, rows: torch.Tensor, keys: torch.Tensor
) -> bool:
    """Whether the rows see just their `window` last keys.

    Two neighbouring rows tell a window from a chunk, which moves by steps.
    """
    row, zero = rows[:, None], torch.zeros((), dtype=torch.int64)
    seen = mask_function(zero, zero, row, keys)
    return bool((seen == ((keys <= row) & (keys > row - window))).all())


def _spans(real: torch.Tensor) -> tuple[tuple[int, int], ...]:
    """[first, end) of the True run in every row of real [sequences, tokens]."""
    first = real.int().argmax(1)
    end = first + real.sum(1)
    place = torch.arange(real.shape[1], device=real.device)
    if bool((real != ((place >= first[:, None]) & (place < end[:, None]))).any()):
        raise AttentionError(
            "attention_mask: the real tokens of a sequence must stand together; pad on the left "
            '(tokenizer.padding_side = "left") to generate'
        )
    return tuple(zip(first.tolist(), end.tolist(), strict=True))
