"""Pieces of a paged cache side by side: one copy for all the KV groups of a sequence."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch

from executor.kernels.batch import Cache
from executor.kernels.torch.memory import Memory


class Pieces:
    """Pieces [lists, count] of a sequence, list i's of KV group groups[i], to be read."""

    def __init__(
        self,
        cache: Cache,
        sequence: int,
        groups: tuple[int, ...],
        pieces: torch.Tensor,
        piece_tokens: int,
    ) -> None:
        assert cache.pages is not None
        self._cache, self._groups, self._size = cache, groups, piece_tokens
        per_page = cache.page_tokens // piece_tokens
        self._page, self._within = pieces, None
        if per_page > 1:
            self._page, self._within = pieces // per_page, pieces % per_page
        first = cache.first_pages[sequence]
        if first is None:
            table = cache.pages[sequence].long()
            self._page = table.index_select(0, self._page.flatten()).view(pieces.shape)
        elif first:
            self._page = self._page + first
        self._rows = _rows_of(cache, piece_tokens)
        self._steps: tuple[int, int, int] | None = None
        self._place = pieces

    def read(self, nth: int, memory: Memory) -> torch.Tensor:
        """Their keys (0) or values (1), fp32 [lists, tokens, head_dim], in memory that is written
        to when some are read again."""
        x, rows = (self._cache.keys, self._cache.values)[nth], self._rows[nth]
        lists, count = self._page.shape
        size, dim = self._size, x.shape[3]
        room = memory.room("pieces", (lists * count, size * dim), x.dtype)
        if rows is not None:
            # Values mostly lie as keys do.
            if rows.steps != self._steps:
                self._steps, self._place = rows.steps, self._places(*rows.steps)
            torch.index_select(rows.rows, 0, self._place, out=room)
        else:
            group, split = torch.tensor(self._groups)[:, None], room.view(lists, count, size, dim)
            if self._within is None:
                split.copy_(x[self._page, group])
            else:
                by_piece = torch.unflatten(x, 2, (-1, size))
                split.copy_(by_piece[self._page, group, self._within])
        return room.view(lists, count * size, dim).float()

    def _places(self, page: int, group: int, within: int) -> torch.Tensor:
        """The row of every piece, by the rows' steps."""
        place = torch.add(_column(self._groups, group), self._page, alpha=page)
        if self._within is not None:
            place.add_(self._within, alpha=within)
        return place.view(-1)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Keys or values seen as rows of a piece's length that begin wherever a piece might, and so
    overlap; `steps` are from page to page, group to group and piece to piece, in rows."""

    rows: torch.Tensor
    steps: tuple[int, int, int]


def _rows(x: torch.Tensor, piece_tokens: int) -> _Rows | None:
    """Of x [pages, groups, tokens, head_dim]; None where a piece's tokens are not side by side."""
    page, group, token, one = x.stride()
    if one != 1 or token != x.shape[3]:
        return None
    length = piece_tokens * token
    unit = math.gcd(page, group, length)
    extent = sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True)) + 1
    shape = (extent - length) // unit + 1, length
    rows = x.as_strided(shape, (unit, 1), x.storage_offset())
    return _Rows(rows, (page // unit, group // unit, length // unit))


def _rows_of(cache: Cache, piece_tokens: int) -> tuple[_Rows | None, _Rows | None]:
    at = "rows", piece_tokens
    found: tuple[_Rows | None, _Rows | None] | None = cache.derived.get(at)
    if found is None:
        found = _rows(cache.keys, piece_tokens), _rows(cache.values, piece_tokens)
        cache.derived[at] = found
    return found


@lru_cache(256)
def _column(numbers: tuple[int, ...], factor: int) -> torch.Tensor:
    """int64 [numbers, 1] of the numbers times the factor."""
    return torch.tensor(numbers)[:, None] * factor
