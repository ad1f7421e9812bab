"""Decode attention on the CPU: one new token a sequence over listed pieces of its K/V.

A list's query heads are computed together (GQA packing): by compiled code that reads keys and
values where they lie, or without a compiler by PyTorch's products, list after list.
"""

import torch

from executor.kernels.batch import Cache
from executor.kernels.decode_layout import DecodeLayout, DecodeLists
from executor.kernels.layout import ALL_PIECES
from executor.kernels.torch.compiled import attend


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
    if attend(q, cache, layout, lists, context_tokens, out, lse):
        return
    contexts, size = context_tokens.tolist(), layout.piece_tokens
    ranges = zip(lists.first.tolist(), lists.count.tolist(), strict=True)
    for number, (first, count) in enumerate(ranges):
        entry, start = layout.lists[number], layout.starts[number]
        at = list(entry.heads), entry.token
        pieces = torch.arange(first, first + count)
        if start != ALL_PIECES:
            pieces = lists.indices[start + first : start + first + count].long()
        tokens = count * size
        if count:
            # The newest piece lacks some.
            tokens -= max(0, (int(pieces[-1]) + 1) * size - contexts[entry.sequence])
        keys, values = (
            _read(x, cache, entry.sequence, entry.group, pieces, size)[:tokens]
            for x in (cache.keys, cache.values)
        )
        scores = q[at].float() @ keys.T * q.shape[2] ** -0.5
        out[at] = (scores.softmax(1) @ values).to(out.dtype)
        if lse is not None:
            lse[at] = scores.logsumexp(1)


def _read(
    x: torch.Tensor, cache: Cache, sequence: int, group: int, pieces: torch.Tensor, size: int
) -> torch.Tensor:
    """Keys or values x of pieces, fp32 [tokens, head_dim]."""
    assert cache.pages is not None
    per_page = cache.page_tokens // size
    page, within = cache.pages[sequence, pieces // per_page].long(), pieces % per_page
    in_pieces = torch.unflatten(x[:, group], 1, (per_page, size))
    return in_pieces[page, within].flatten(0, 1).float()
