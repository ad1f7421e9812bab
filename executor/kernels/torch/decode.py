"""Decode attention on the CPU: one new token a sequence over listed pieces of its K/V.

A group's query heads go through one product together (GQA packing); threads take runs of the listed
pieces, whose results are merged by their log-sum-exps (Flash-Decoding, PyTorch blog, 2023).
"""

from collections import defaultdict
from dataclasses import dataclass

import torch

from executor.kernels.batch import Cache, Pair
from executor.kernels.decode_layout import DecodeLayout, DecodeLists
from executor.kernels.layout import ALL_PIECES
from executor.kernels.torch.consecutive import Index, index_of, packed
from executor.kernels.torch.memory import Memory
from executor.kernels.torch.merge import merge
from executor.kernels.torch.paged import Pieces
from executor.kernels.torch.threads import in_threads, tasks_at_once

GATHERED_BYTES = 2**21
"""K and V of the pieces computed at once: what was gathered is still in cache when it is used."""

_memory = Memory()


def decode_attention(
    q: torch.Tensor,
    cache: Cache,
    layout: DecodeLayout,
    lists: DecodeLists,
    context_tokens: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
) -> None:
    """Attention of q [heads, new tokens, head_dim] to the paged `cache` over `lists`.

    context_tokens int32 [sequences] counts each sequence's keys, those of the new token included.
    Writes out, shaped like q, and lse fp32 [heads, new tokens] (natural log-sum-exp of the scaled
    scores) at the entries' heads and tokens, 0 and -inf where a count is 0, and leaves the others
    as they are. Any strides, head_dim, block and dtype; computed in fp32.
    """
    size, dim = layout.piece_tokens, q.shape[2]
    contexts = context_tokens.tolist()
    # What the newest piece of each sequence lacks.
    lacks = [-tokens % size for tokens in contexts]
    first, count = tuple(lists.first.tolist()), tuple(lists.count.tolist())
    last = _last_pieces(layout, lists, first, count)
    newest = tuple(
        piece == (contexts[entry.sequence] - 1) // size
        for piece, entry in zip(last, layout.lists, strict=True)
    )
    at_once = max(1, GATHERED_BYTES // (2 * 4 * size * dim))
    batches, idle = layout.derive(_batches, first, count, newest, at_once, tasks_at_once())

    def compute(batch: _Batch) -> Pair:
        queries = packed(q, batch.heads, batch.token, len(batch.groups))
        tokens = batch.count * size - batch.newest * lacks[batch.sequence]
        pieces = None
        begin = cache.first_pages[batch.sequence]
        if not batch.whole or begin is None or cache.page_tokens != size:
            pieces = Pieces(cache, batch.sequence, batch.groups, batch.pieces(lists.indices), size)

        def read(nth: int) -> torch.Tensor:
            if pieces is not None:
                return pieces.read(nth, _memory)[:, :tokens]
            # Pages that follow one another are read where they lie.
            assert begin is not None
            pages = slice(begin + batch.at[0], begin + batch.at[0] + batch.count)
            held = (cache.keys, cache.values)[nth][pages, batch.groups[0]]
            return held.flatten(0, 1)[None, :tokens].float()

        scores = _memory.room("scores", (*queries.shape[:2], tokens))
        keys = read(0).transpose(1, 2)
        torch.baddbmm(scores, queries, keys, beta=0, alpha=dim**-0.5, out=scores)
        greatest = scores.amax(2)
        weights = scores.softmax(2)
        # The greatest weight is 1 over the sum of all by which they were divided.
        return torch.bmm(weights, read(1)), greatest - weights.amax(2).log()

    parts: dict[int, list[Pair]] = defaultdict(list)
    for batch, (result, row_lse) in zip(batches, in_threads(compute, batches), strict=True):
        if batch.divided:
            for number, *part in zip(batch.numbers, result, row_lse, strict=True):
                parts[number].append((part[0], part[1]))
        else:
            _store((batch.heads, batch.token), result.view(-1, dim), row_lse.view(-1), out, lse)
    for number, some in parts.items():
        result, row_lse = merge(*(torch.stack(x) for x in zip(*some, strict=True)))
        at = index_of(layout.lists[number].heads), layout.lists[number].token
        _store(at, result, row_lse, out, lse)
    for number in idle:
        at = index_of(layout.lists[number].heads), layout.lists[number].token
        out[at], lse[at] = 0.0, -torch.inf


def _store(
    at: tuple[Index, int],
    result: torch.Tensor,
    row_lse: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
) -> None:
    out[at] = result if out.dtype == result.dtype else result.to(out.dtype)
    lse[at] = row_lse


def _last_pieces(
    layout: DecodeLayout, lists: DecodeLists, first: tuple[int, ...], count: tuple[int, ...]
) -> list[int]:
    """Of each entry the last piece that is read."""
    stored = lists.indices.tolist()
    ends = [begin + pieces - 1 for begin, pieces in zip(first, count, strict=True)]
    return [
        end if start == ALL_PIECES else stored[start + end] if pieces else -1
        for start, end, pieces in zip(layout.starts, ends, count, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Batch:
    """Parts of lists of one sequence, of `count` pieces each: those of entries `numbers`.

    They are the pieces from at[0] on themselves where a `whole` list stands alone, else those at
    `indices[at[i]:]`. `newest`: the sequence's newest piece is the last of each. `divided`: a list
    has other parts.
    """

    numbers: tuple[int, ...]
    sequence: int
    token: int
    heads: Index
    groups: tuple[int, ...]
    whole: bool
    at: tuple[int, ...]
    count: int
    newest: bool
    divided: bool

    def pieces(self, indices: torch.Tensor) -> torch.Tensor:
        """Their pieces, [lists, count]."""
        first, lists = self.at[0], len(self.at)
        if self.whole:
            return torch.arange(first, first + self.count)[None]
        if self.at == tuple(range(first, first + lists * self.count, self.count)):
            return indices[first : first + lists * self.count].view(lists, -1)
        return torch.stack([indices[at : at + self.count] for at in self.at])


def _batches(
    layout: DecodeLayout,
    first: tuple[int, ...],
    count: tuple[int, ...],
    newest: tuple[bool, ...],
    at_once: int,
    threads: int,
) -> tuple[list[_Batch], list[int]]:
    """Lists or parts of equal shapes of a sequence, which are computed at once: as many at least as
    there are threads, where it is more than one batch's work. And the entries without pieces.

    Whole lists stay by themselves: pages that follow one another are read where they lie.
    """
    alike: dict[tuple[int, int, int, int, bool, bool, int], list[tuple[int, int]]]
    alike = defaultdict(list)
    parts = 0
    for number, (entry, start) in enumerate(zip(layout.lists, layout.starts, strict=True)):
        whole = start == ALL_PIECES
        for begin in range(0, count[number], at_once):
            part = min(at_once, count[number] - begin)
            ends = newest[number] and begin + part == count[number]
            alone = parts if whole else -1
            kind = entry.sequence, entry.token, len(entry.heads), part, ends, whole, alone
            alike[kind].append((number, first[number] + begin + (0 if whole else start)))
            parts += 1
    for_each = -(-parts // threads) if sum(count) > at_once else max(1, parts)
    found = []
    for (sequence, token, _, part, ends, whole, _), every in alike.items():
        most = min(for_each, max(1, at_once // part))
        for some in (every[begin : begin + most] for begin in range(0, len(every), most)):
            numbers, at = zip(*some, strict=True)
            entries = [layout.lists[number] for number in numbers]
            heads = index_of([head for entry in entries for head in entry.heads])
            groups = tuple(entry.group for entry in entries)
            divided = any(count[number] > at_once for number in numbers)
            found.append(
                _Batch(numbers, sequence, token, heads, groups, whole, at, part, ends, divided)
            )
    return found, [number for number, pieces in enumerate(count) if not pieces]
