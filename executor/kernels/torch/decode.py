"""Decode attention on the CPU: one new token a sequence over listed pieces of its K/V.

A group's query heads go through one product together (GQA packing); threads take runs of the listed
pieces, whose results are merged by their log-sum-exps (Flash-Decoding, PyTorch blog, 2023).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch

from executor.kernels.batch import Cache
from executor.kernels.decode_layout import DecodeHeads, DecodeLayout, DecodeLists
from executor.kernels.layout import ALL_PIECES
from executor.kernels.torch.consecutive import index_of
from executor.kernels.torch.merge import merge
from executor.kernels.torch.prefill import Pair, flash
from executor.kernels.torch.threads import in_threads

GATHERED_BYTES = 2**21
"""K and V of one run of pieces: what was gathered is still in cache when it is used."""


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

    def compute(run: _Run) -> Pair:
        keys, values = (
            _gather(x[:, run.entry.group], run, layout.piece_tokens)
            for x in (cache.keys, cache.values)
        )
        return flash(
            q[index_of(run.entry.heads), run.entry.token].float().unsqueeze(0), keys, values
        )

    runs = list(_runs(cache, layout, lists, context_tokens.tolist()))
    results = in_threads(compute, runs)
    parts = groupby(zip(runs, results, strict=True), lambda part: part[0].number)
    found = {number: [result for _, result in of_entry] for number, of_entry in parts}
    for number, entry in enumerate(layout.lists):
        at = index_of(entry.heads), entry.token
        match found.get(number, []):
            case []:
                out[at], lse[at] = 0.0, -torch.inf
            case [(result, row_lse)]:
                out[at], lse[at] = result[0].to(out.dtype), row_lse[0]
            case several:
                out[at], lse[at] = merge(*(torch.cat(x) for x in zip(*several, strict=True)))


@dataclass(frozen=True, eq=False)
class _Run:
    """Part of the list of entry `number`: the first `tokens` of pieces `within` their `pages`, or
    of pages that follow one another, a piece each."""

    number: int
    entry: DecodeHeads
    pages: torch.Tensor | range
    within: torch.Tensor
    tokens: int


def _gather(x: torch.Tensor, run: _Run, piece_tokens: int) -> torch.Tensor:
    """Keys or values of a run, fp32 [1, tokens, head_dim], of x [pages, page_tokens, head_dim].

    A view of them where nothing needs to be moved.
    """
    if isinstance(run.pages, range):
        found = x[run.pages.start : run.pages.stop]
    elif x.shape[1] == piece_tokens:
        found = x.index_select(0, run.pages)
    else:
        found = torch.unflatten(x, 1, (-1, piece_tokens))[run.pages, run.within]
    return found.float().flatten(0, 1)[None, : run.tokens]


def _runs(
    cache: Cache, layout: DecodeLayout, lists: DecodeLists, contexts: list[int]
) -> Iterator[_Run]:
    assert cache.pages is not None
    size, per_page = layout.piece_tokens, cache.page_tokens // layout.piece_tokens
    step = max(1, GATHERED_BYTES // (2 * 4 * size * cache.keys.shape[-1]))
    ranges = zip(layout.start.tolist(), lists.first.tolist(), lists.count.tolist(), strict=True)
    for number, (start, first, count) in enumerate(ranges):
        if not count:
            continue
        entry = layout.lists[number]
        table = cache.pages[entry.sequence]
        if start == ALL_PIECES:
            pieces, end = torch.arange(first, first + count), first + count
        else:
            pieces = lists.indices[start + first :][:count].long()
            end = int(pieces[-1]) + 1
        # Lists ascend: only their last piece may be short.
        tokens = count * size - max(0, end * size - contexts[entry.sequence])
        pages: torch.Tensor | range = table.index_select(0, pieces // per_page)
        if start == ALL_PIECES and per_page == 1:
            pages = _range(table[first:end].tolist()) or pages
        for begin in range(0, count, step):
            some = slice(begin, begin + step)
            held = min(len(pages[some]) * size, tokens - begin * size)
            yield _Run(number, entry, pages[some], pieces[some] % per_page, held)


def _range(numbers: list[int]) -> range | None:
    """The range that they are, if they follow one another."""
    found = range(numbers[0], numbers[-1] + 1)
    return found if list(found) == numbers else None
