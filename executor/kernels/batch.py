"""What one step brings to attention: chunks of sequences, and the keys and values they see."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch

Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values, or an output and its log-sum-exps."""


@dataclass(frozen=True)
class Chunk:
    """A sequence's part of a step: `new_tokens` query rows after `cached_tokens` keys.

    A whole prompt has nothing cached, a chunk of a prompt (Sarathi-Serve, arXiv 2403.02310) its
    prefix. A sequence that `decodes` brings one new token and has lists that its heads share.
    """

    cached_tokens: int
    new_tokens: int
    decodes: bool = False

    @property
    def total_tokens(self) -> int:
        """Keys of the sequence, those of the new tokens included."""
        return self.cached_tokens + self.new_tokens


@dataclass(frozen=True, eq=False)
class Cache:
    """Keys and values of every sequence, those of the new tokens included; strides are free.

    Contiguous: keys and values [groups, tokens, head_dim], sequence s from token `starts[s]` on
    (int32 [sequences]). Paged: [pages, groups, page_tokens, head_dim], tokens [i page_tokens,
    (i + 1) page_tokens) of sequence s in page `pages[s, i]` (int32 [sequences, pages]); a page
    holds whole pieces. Exactly one of `starts` and `pages` is given. What lies behind a sequence's
    last token may hold anything, NaN included.
    """

    keys: torch.Tensor
    values: torch.Tensor
    starts: torch.Tensor | None = None
    pages: torch.Tensor | None = None

    @property
    def page_tokens(self) -> int:
        """Tokens of a page; a contiguous cache has none."""
        return self.keys.shape[2] if self.pages is not None else 0

    @cached_property
    def derived(self) -> dict[object, Any]:
        """What a back end derives from the cache, once: a growing sequence keeps its own."""
        return {}

    @cached_property
    def first_pages(self) -> list[int | None]:
        """Of each sequence of a paged cache the first page, where its table's pages follow one
        another, else None; waits for the device."""
        table = self.pages
        assert table is not None
        if not table.shape[1]:
            return [None] * len(table)
        follow = (table[:, 1:] - table[:, :-1] == 1).all(1).tolist()
        firsts = table[:, 0].tolist()
        return [first if runs else None for first, runs in zip(firsts, follow, strict=True)]


def query_starts(chunks: tuple[Chunk, ...]) -> list[int]:
    """The token of q [heads, new tokens, head_dim] at which each chunk begins, and the end."""
    return [0, *accumulate(chunk.new_tokens for chunk in chunks)]


def as_pages(cache: Cache, chunks: tuple[Chunk, ...], page_tokens: int) -> Cache:
    """A contiguous cache seen as pages, without copying; every start is a multiple of a page.

    The cache's tokens must be whole pages: room behind the last sequence, as a growing one needs.
    """
    assert cache.starts is not None

    def paged(x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], -1, page_tokens, x.shape[2]).transpose(0, 1)

    most = max(-(-chunk.total_tokens // page_tokens) for chunk in chunks)
    blocks = torch.arange(most, dtype=torch.int32, device=cache.keys.device)
    pages = (cache.starts // page_tokens)[:, None] + blocks
    return Cache(paged(cache.keys), paged(cache.values), pages=pages.int())


def sequence_keys(cache: Cache, sequence: int, group: int, tokens: int) -> torch.Tensor:
    """The first `tokens` keys of a sequence in `group`, [tokens, head_dim]; reads the tables."""
    if cache.starts is not None:
        first = int(cache.starts[sequence])
        return cache.keys[group, first : first + tokens]
    assert cache.pages is not None
    pages = cache.pages[sequence, : -(-tokens // cache.page_tokens)].long()
    return cache.keys[pages, group].flatten(0, 1)[:tokens]
