"""Decode attention on the CPU: one new token a sequence over listed pieces of its K/V.

A group's query heads go through one product together (GQA packing); threads take runs of the listed
pieces, whose results are merged by their log-sum-exps (Flash-Decoding, PyTorch blog, 2023).
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch

from executor.kernels.batch import Cache, Pair
from executor.kernels.decode_layout import DecodeHeads, DecodeLayout, DecodeLists
from executor.kernels.layout import ALL_PIECES
from executor.kernels.torch.consecutive import index_of, range_of
from executor.kernels.torch.merge import merge
from executor.kernels.torch.prefill import flash
from executor.kernels.torch.threads import in_threads

GATHERED_BYTES = 2**21
"""K and V of the pieces computed at once: what was gathered is still in cache when it is used."""


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

    def compute(runs: list[_Run]) -> Pair:
        heads = [head for run in runs for head in run.entry.heads]
        queries = q[index_of(heads), runs[0].entry.token].float().view(len(runs), -1, q.shape[2])
        keys, values = (_gather(x, runs, layout.piece_tokens) for x in (cache.keys, cache.values))
        return flash(queries, keys, values)

    runs = list(_runs(cache, layout, lists, context_tokens.tolist()))
    batches = _batches(runs, _pieces_at_once(cache, layout))
    parts: dict[int, list[Pair]] = defaultdict(list)
    divided = {run.number for before, run in pairwise(runs) if run.number == before.number}
    for batch, found in zip(batches, in_threads(compute, batches), strict=True):
        if divided.isdisjoint(run.number for run in batch):
            at = index_of([head for run in batch for head in run.entry.heads]), batch[0].entry.token
            result, row_lse = (x.flatten(0, 1) for x in found)
            out[at], lse[at] = result.to(out.dtype), row_lse
        else:
            for run, result, row_lse in zip(batch, *found, strict=True):
                parts[run.number].append((result, row_lse))
    computed = {run.number for run in runs}
    for number, entry in enumerate(layout.lists):
        at = index_of(entry.heads), entry.token
        if number in parts:
            result, row_lse = merge(*(torch.stack(x) for x in zip(*parts[number], strict=True)))
            out[at], lse[at] = result.to(out.dtype), row_lse
        elif number not in computed:
            out[at], lse[at] = 0.0, -torch.inf


@dataclass(frozen=True, eq=False)
class _Run:
    """Part of the list of entry `number`: the first `tokens` of its pieces, piece `within[i]` of
    `pages[i]`. A range of pages, a piece each, is read where it lies."""

    number: int
    entry: DecodeHeads
    pages: range | list[int]
    within: list[int]
    tokens: int


def _pieces_at_once(cache: Cache, layout: DecodeLayout) -> int:
    return max(1, GATHERED_BYTES // (2 * 4 * layout.piece_tokens * cache.keys.shape[-1]))


def _batches(runs: list[_Run], pieces_at_once: int) -> list[list[_Run]]:
    """Runs of equal shapes, which are computed at once; as many at least as there are threads,
    where it is more than one batch's work.

    Pages that follow one another are not moved to others' and stay by themselves.
    """
    all_pieces = sum(len(run.pages) for run in runs)
    threads = torch.get_num_threads() if all_pieces > pieces_at_once else 1
    for_each = -(-len(runs) // threads)
    alike: dict[object, list[_Run]] = defaultdict(list)
    for number, run in enumerate(runs):
        alone = number if isinstance(run.pages, range) else None
        alike[run.tokens, len(run.entry.heads), run.entry.token, alone].append(run)
    batches = []
    for some in alike.values():
        most = min(for_each, max(1, pieces_at_once // len(some[0].pages)))
        batches += [some[at : at + most] for at in range(0, len(some), most)]
    return batches


def _gather(x: torch.Tensor, runs: list[_Run], piece_tokens: int) -> torch.Tensor:
    """Keys or values of a batch, fp32 [runs, tokens, head_dim], of x [pages, groups, page_tokens,
    head_dim]: a view of it for pages that follow one another."""
    pages = runs[0].pages
    if isinstance(pages, range):
        found = x[pages.start : pages.stop, runs[0].entry.group][None]
    else:
        found = x.new_empty(len(runs), len(pages), piece_tokens, x.shape[3])
        for one, place in zip(runs, found, strict=True):
            held = x[:, one.entry.group]
            if x.shape[2] == piece_tokens:
                torch.index_select(held, 0, torch.tensor(one.pages), out=place)
            else:
                by_piece = torch.unflatten(held, 1, (-1, piece_tokens))
                place.copy_(by_piece[one.pages, one.within])
    return found.flatten(1, 2)[:, : runs[0].tokens].float()


def _runs(
    cache: Cache, layout: DecodeLayout, lists: DecodeLists, contexts: list[int]
) -> Iterator[_Run]:
    assert cache.pages is not None
    size, per_page = layout.piece_tokens, cache.page_tokens // layout.piece_tokens
    step = _pieces_at_once(cache, layout)
    table: dict[int, list[int]] = {}
    stored = lists.indices.tolist()
    ranges = zip(layout.start.tolist(), lists.first.tolist(), lists.count.tolist(), strict=True)
    for number, (start, first, count) in enumerate(ranges):
        if not count:
            continue
        entry = layout.lists[number]
        held, whole = contexts[entry.sequence], start == ALL_PIECES
        if entry.sequence not in table:
            used = -(-held // cache.page_tokens)
            table[entry.sequence] = cache.pages[entry.sequence, :used].tolist()
        pages = table[entry.sequence]
        pieces = range(first, first + count) if whole else stored[start + first :][:count]
        # Lists ascend: only their last piece may be short.
        tokens = count * size - max(0, (pieces[-1] + 1) * size - held)
        taken: range | list[int] = [pages[piece // per_page] for piece in pieces]
        if whole and per_page == 1:
            taken = range_of(taken) or taken
        within = [piece % per_page for piece in pieces]
        for begin in range(0, count, step):
            some = slice(begin, begin + step)
            left = min(len(taken[some]) * size, tokens - begin * size)
            yield _Run(number, entry, taken[some], within[some], left)
