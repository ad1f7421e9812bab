"""Decode attention on the CPU: one new token a sequence over listed pieces of its K/V.

A group's query heads go through one product together (GQA packing); threads take runs of the listed
pieces, whose results are merged by their log-sum-exps (Flash-Decoding, PyTorch blog, 2023).
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

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
    found: dict[int, list[Pair]] = defaultdict(list)
    for batch, results in zip(batches, in_threads(compute, batches), strict=True):
        for run, result, row_lse in zip(batch, *results, strict=True):
            found[run.number].append((result, row_lse))
    for number, entry in enumerate(layout.lists):
        at = index_of(entry.heads), entry.token
        match found[number]:
            case []:
                out[at], lse[at] = 0.0, -torch.inf
            case [(result, row_lse)]:
                out[at], lse[at] = result.to(out.dtype), row_lse
            case parts:
                result, row_lse = merge(*(torch.stack(x) for x in zip(*parts, strict=True)))
                out[at], lse[at] = result.to(out.dtype), row_lse


@dataclass(frozen=True, eq=False)
class _Run:
    """Part of the list of entry `number`: the first `tokens` of pieces `within` their `pages`.

    `adjacent` are the pages where they follow one another and are a piece each.
    """

    number: int
    entry: DecodeHeads
    pages: torch.Tensor
    within: torch.Tensor
    adjacent: range | None
    tokens: int


def _pieces_at_once(cache: Cache, layout: DecodeLayout) -> int:
    return max(1, GATHERED_BYTES // (2 * 4 * layout.piece_tokens * cache.keys.shape[-1]))


def _batches(runs: list[_Run], pieces_at_once: int) -> list[list[_Run]]:
    """Runs of equal shapes, which are computed at once; as many at least as there are threads.

    Pages that follow one another are not moved to others' and stay by themselves.
    """
    for_each = -(-len(runs) // torch.get_num_threads())
    alike: dict[object, list[_Run]] = defaultdict(list)
    for number, run in enumerate(runs):
        alone = number if run.adjacent else None
        alike[run.tokens, len(run.entry.heads), run.entry.token, alone].append(run)
    batches = []
    for some in alike.values():
        most = min(for_each, max(1, pieces_at_once // len(some[0].pages)))
        batches += [some[at : at + most] for at in range(0, len(some), most)]
    return batches


def _gather(x: torch.Tensor, runs: list[_Run], piece_tokens: int) -> torch.Tensor:
    """Keys or values of a batch, fp32 [runs, tokens, head_dim], of x [pages, groups, page_tokens,
    head_dim]: a view of it for pages that follow one another."""
    run = runs[0]
    if run.adjacent:
        found = x[run.adjacent.start : run.adjacent.stop, run.entry.group][None]
    else:
        found = x.new_empty(len(runs), len(run.pages), piece_tokens, x.shape[3])
        for place, one in enumerate(runs):
            if x.shape[2] == piece_tokens:
                torch.index_select(x[:, one.entry.group], 0, one.pages, out=found[place])
            else:
                by_piece = torch.unflatten(x[:, one.entry.group], 1, (-1, piece_tokens))
                found[place] = by_piece[one.pages, one.within]
    return found.flatten(1, 2)[:, : run.tokens].float()


def _runs(
    cache: Cache, layout: DecodeLayout, lists: DecodeLists, contexts: list[int]
) -> Iterator[_Run]:
    assert cache.pages is not None
    size, per_page = layout.piece_tokens, cache.page_tokens // layout.piece_tokens
    step = _pieces_at_once(cache, layout)
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
        # Divided only where they must be: a lone token's attention is made of such short calls.
        pages, within = pieces, pieces
        if per_page > 1:
            pages, within = pieces // per_page, pieces % per_page
        pages = table.index_select(0, pages)
        every = start == ALL_PIECES and per_page == 1
        adjacent = range_of(table[first:end].tolist()) if every else None
        for begin in range(0, count, step):
            some = slice(begin, begin + step)
            held = min(len(pages[some]) * size, tokens - begin * size)
            yield _Run(number, entry, pages[some], within[some], adjacent and adjacent[some], held)
