"""A cache's keys and values as the CPU back end reads them."""

import math
import threading

import torch

from executor.kernels.batch import Cache
from executor.kernels.torch.spans import Span

Pair = tuple[torch.Tensor, torch.Tensor]


class Reader:
    """A cache's keys and values in fp32, without what lies behind a sequence's last token.

    What is not read in place lies in the thread's own memory, until it reads again: fresh memory
    for every batch would fault its pages in.
    """

    def __init__(self, cache: Cache, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self._cache = cache
        self._thread = threading.local()

    def tokens(self, span: Span) -> Pair:
        """All tokens up to the span's last one, [tokens, head_dim]."""
        keys = self._tokens(self._cache.keys, span, "keys")
        return keys, self._tokens(self._cache.values, span, "values")

    def gathered(self, span: Span, chosen: torch.Tensor) -> Pair:
        """The chosen [rows, length] blocks of the span's sequence, [rows, tokens, head_dim]."""
        keys = self._gathered(self._cache.keys, span, chosen, "keys")
        return keys, self._gathered(self._cache.values, span, chosen, "values")

    def _tokens(self, x: torch.Tensor, span: Span, name: str) -> torch.Tensor:
        end = span.first_token + span.new_tokens
        if self._cache.pages is not None:
            pages = self._cache.pages[span.sequence, : -(-end // self.block_tokens)]
            return self._select(x[:, span.group], pages, name).flatten(0, 1)[:end]
        tokens = self._range(x, span, 0, end)
        if tokens.dtype == torch.float32 and tokens.is_contiguous():
            return tokens
        return self._room(name, tuple(tokens.shape)).copy_(tokens)

    def _gathered(
        self, x: torch.Tensor, span: Span, chosen: torch.Tensor, name: str
    ) -> torch.Tensor:
        whole, rest = divmod(span.total_tokens, self.block_tokens)
        # A list of fewer blocks than all has a whole one; a short one, always last, comes below.
        places = chosen.flatten().clamp(max=whole - 1)
        if self._cache.pages is not None:
            pages = self._cache.pages[span.sequence]
            blocks, places = x[:, span.group], pages.index_select(0, places)
        else:
            tokens = self._range(x, span, 0, whole * self.block_tokens)
            blocks = tokens.view(whole, self.block_tokens, -1)
        gathered = self._select(blocks, places, name)
        if span.first + span.rows > whole:
            gathered[-1, rest:] = 0.0
            if self._cache.pages is not None:
                gathered[-1, :rest] = x[int(pages[whole]), span.group, :rest]
            else:
                gathered[-1, :rest] = self._range(
                    x, span, whole * self.block_tokens, span.total_tokens
                )
        return gathered.view(len(chosen), -1, x.shape[-1])

    def _range(self, x: torch.Tensor, span: Span, begin: int, end: int) -> torch.Tensor:
        """Tokens [begin, end) of the span's contiguous sequence."""
        assert self._cache.starts is not None
        start = int(self._cache.starts[span.sequence])
        return x[span.group, start + begin : start + end]

    def _select(self, blocks: torch.Tensor, places: torch.Tensor, name: str) -> torch.Tensor:
        gathered = self._room(name, (len(places), *blocks.shape[1:]))
        if blocks.dtype == gathered.dtype:
            return torch.index_select(blocks, 0, places, out=gathered)
        return gathered.copy_(blocks.index_select(0, places))

    def _room(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        size = math.prod(shape)
        room: torch.Tensor | None = getattr(self._thread, name, None)
        if room is None or room.numel() < size:
            room = torch.empty(size)
            setattr(self._thread, name, room)
        return room[:size].view(shape)
