"""A cache's keys and values as the CPU back end reads them."""

import torch

from executor.kernels.batch import Cache, Pair
from executor.kernels.torch.memory import Memory
from executor.kernels.torch.spans import Span

_memory = Memory()


class Reader:
    """A cache's keys and values in fp32, without what lies behind a sequence's last token.

    What is not read in place lies in the thread's own memory, until the thread reads again.
    """

    def __init__(self, cache: Cache, block_tokens: int, piece_tokens: int) -> None:
        self.block_tokens, self.piece_tokens = block_tokens, piece_tokens
        self.cache = cache
        self._starts = [] if cache.starts is None else cache.starts.tolist()
        self.room = _memory.room

    def tokens(self, span: Span) -> Pair:
        """All tokens up to the span's last one, [tokens, head_dim]."""
        keys = self._tokens(self.cache.keys, span, "keys")
        return keys, self._tokens(self.cache.values, span, "values")

    def _tokens(self, x: torch.Tensor, span: Span, name: str) -> torch.Tensor:
        end = span.first_token + span.new_tokens
        if self.cache.pages is not None:
            pages = self.cache.pages[span.sequence, : -(-end // self.cache.page_tokens)]
            gathered = self.room(name, (len(pages), *x.shape[2:]))
            return self._select(x[:, span.group], pages, gathered).flatten(0, 1)[:end]
        tokens = self._range(x, span, 0, end)
        if tokens.dtype == torch.float32 and tokens.is_contiguous():
            return tokens
        return self.room(name, tuple(tokens.shape)).copy_(tokens)

    def gathered(self, x: torch.Tensor, span: Span, chosen: torch.Tensor) -> torch.Tensor:
        """The pieces `chosen` by the span's lists, one after the other, as [blocks, tokens,
        head_dim].

        `x` are the cache's keys or its values; what was gathered before is overwritten. Zeros stand
        for own pieces behind the sequence's end.
        """
        size, count = self.piece_tokens, len(chosen)
        whole, rest = divmod(span.total_tokens, size)
        gathered = self.room("gathered", (count + span.missing, size, x.shape[-1]))
        short = rest and (span.first + span.blocks) * (self.block_tokens // size) > whole
        # A list of fewer pieces than all has a whole one; a short one, always last, comes below.
        places = chosen.clamp(max=whole - 1) if short else chosen
        filled = gathered[:count] if span.missing else gathered
        if self.cache.pages is not None:
            per_page = self.cache.page_tokens // size
            pages = self.cache.pages[span.sequence].index_select(0, places // per_page)
            pieces = x[:, span.group]
            if per_page == 1:
                self._select(pieces, pages, filled)
            else:
                split: torch.Tensor = torch.unflatten(pieces, 1, (per_page, size))
                filled.copy_(split[pages, places % per_page])
        else:
            tokens = self._range(x, span, 0, whole * size)
            self._select(tokens.view(whole, size, -1), places, filled)
        if short:
            filled[-1, :rest] = self._short(x, span, whole * size)
            filled[-1, rest:] = 0.0
        if span.missing:
            gathered[count:] = 0.0
        return gathered.view(span.blocks, -1, x.shape[-1])

    def _short(self, x: torch.Tensor, span: Span, begin: int) -> torch.Tensor:
        """Tokens [begin, total) of the span's sequence, less than a piece."""
        if self.cache.pages is None:
            return self._range(x, span, begin, span.total_tokens)
        page, within = divmod(begin, self.cache.page_tokens)
        end = within + span.total_tokens - begin
        return x[int(self.cache.pages[span.sequence, page]), span.group, within:end]

    def _range(self, x: torch.Tensor, span: Span, begin: int, end: int) -> torch.Tensor:
        """Tokens [begin, end) of the span's contiguous sequence."""
        start = self._starts[span.sequence]
        return x[span.group, start + begin : start + end]

    def _select(
        self, pieces: torch.Tensor, places: torch.Tensor, gathered: torch.Tensor
    ) -> torch.Tensor:
        if pieces.dtype == gathered.dtype:
            return torch.index_select(pieces, 0, places, out=gathered)
        return gathered.copy_(pieces.index_select(0, places))
