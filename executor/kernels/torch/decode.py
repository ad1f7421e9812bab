"""Decode attention on the CPU: one new token a sequence over listed pieces of its K/V.

A group's query heads go through one product together (GQA packing); threads take runs of the listed
pieces, whose results are merged by their log-sum-exps (Flash-Decoding, PyTorch blog, 2023).
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch

from executor.kernels.batch import Cache, Pair
from executor.kernels.decode_layout import DecodeLayout, DecodeLists
from executor.kernels.layout import ALL_PIECES
from executor.kernels.torch.consecutive import ZERO, Index, index_of, packed
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
    lse: torch.Tensor | None,
) -> None:
    """Attention of q [heads, new tokens, head_dim] to the paged `cache` over `lists`.

    context_tokens int32 [sequences] counts each sequence's keys, those of the new token included.
    Writes out, shaped like q, and unless it is None lse fp32 [heads, new tokens] (natural
    log-sum-exp of the scaled scores) at the entries' heads and tokens, 0 and -inf where a count is
    0, and leaves the others as they are. Any strides, head_dim, block and dtype; computed in fp32.
    """
    size, dim = layout.piece_tokens, q.shape[2]
    contexts = context_tokens.tolist()
    first, count = tuple(lists.first.tolist()), tuple(lists.count.tolist())
    newest = _with_newest(layout, lists, first, count, contexts)
    at_once = max(1, GATHERED_BYTES // (2 * 4 * size * dim))
    batches, idle = layout.derive(_batches, first, count, newest, at_once, tasks_at_once())

    def compute(batch: _Batch) -> Pair | None:
        """The result where it is part of one, else it is stored."""
        queries = packed(q, batch.heads, batch.token, len(batch.groups))
        tokens = batch.count * size
        if batch.newest:
            # The newest piece, which is the last, lacks some.
            tokens -= -contexts[batch.sequence] % size
        read = _reader(cache, batch, lists.indices, size)
        keys = read(0)[:, :tokens].transpose(1, 2)
        scores = torch.baddbmm(ZERO, queries, keys, beta=0, alpha=dim**-0.5)
        weights = scores.softmax(2)
        row_lse = None
        if lse is not None or batch.divided:
            # The greatest weight is 1 over the sum of all by which they were divided.
            row_lse = scores.amax(2) - weights.amax(2).log()
        values = read(1)[:, :tokens]
        if row_lse is not None and batch.divided:
            return torch.bmm(weights, values), row_lse
        at = batch.heads, batch.token
        if out.dtype == torch.float32 and isinstance(batch.heads, slice):
            torch.bmm(weights, values, out=packed(out, *at, len(batch.groups)))
        else:
            out[at] = torch.bmm(weights, values).view(-1, dim).to(out.dtype)
        if lse is not None and row_lse is not None:
            lse[at] = row_lse.view(-1)
        return None

    parts: dict[int, list[Pair]] = defaultdict(list)
    for batch, found in zip(batches, in_threads(compute, batches), strict=True):
        if found is not None:
            for number, *part in zip(batch.numbers, *found, strict=True):
                parts[number].append((part[0], part[1]))
    for number, some in parts.items():
        result, row_lse = merge(*(torch.stack(x) for x in zip(*some, strict=True)))
        _store(layout, number, result.to(out.dtype), row_lse, out, lse)
    for number in idle:
        _store(layout, number, 0.0, -torch.inf, out, lse)


def _store(
    layout: DecodeLayout,
    number: int,
    result: torch.Tensor | float,
    row_lse: torch.Tensor | float,
    out: torch.Tensor,
    lse: torch.Tensor | None,
) -> None:
    """Write what an entry's heads have."""
    at = index_of(layout.lists[number].heads), layout.lists[number].token
    out[at] = result
    if lse is not None:
        lse[at] = row_lse


def _with_newest(
    layout: DecodeLayout,
    lists: DecodeLists,
    first: tuple[int, ...],
    count: tuple[int, ...],
    contexts: list[int],
) -> tuple[bool, ...]:
    """Of each entry whether the last piece that is read is its sequence's newest."""
    stored = lists.indices.tolist()
    found = []
    for number, (entry, start) in enumerate(zip(layout.lists, layout.starts, strict=True)):
        last = first[number] + count[number] - 1
        if start != ALL_PIECES and count[number]:
            last = stored[start + last]
        found.append(last == (contexts[entry.sequence] - 1) // layout.piece_tokens)
    return tuple(found)


def _reader(
    cache: Cache, batch: "_Batch", indices: torch.Tensor, size: int
) -> Callable[[int], torch.Tensor]:
    """What reads the batch's keys (0) or values (1), fp32 [lists, tokens, head_dim]."""
    begin = cache.first_pages[batch.sequence]
    if not batch.whole or begin is None or cache.page_tokens != size:
        pieces = Pieces(cache, batch.sequence, batch.groups, batch.pieces(indices), size)
        return lambda nth: pieces.read(nth, _memory)
    # Pages that follow one another are read where they lie.
    pages = slice(begin + batch.at[0], begin + batch.at[0] + batch.count)

    def in_place(nth: int) -> torch.Tensor:
        return (cache.keys, cache.values)[nth][pages, batch.groups[0]].flatten(0, 1)[None].float()

    return in_place


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
