"""Block-sparse causal prefill attention on the CPU: the listed tiles and little else.

Query blocks with equally long lists are the batch of two products with their K and V gathered:
PyTorch's flash kernel for CPUs would take a block's rows 32 at a time, and pack its keys for each.
Blocks with all their keys go through that kernel (FlashAttention-2, arXiv 2307.08691) in strips:
what stands before a strip's own keys and the causal square of its own one after the other, merged
by their log-sum-exps (FlashInfer, arXiv 2501.01005, section 2.2), so that no tile pays for a mask.
"""

import math

import torch

from executor.kernels.batch import Cache, Pair
from executor.kernels.layout import ALL_PIECES, Layout
from executor.kernels.torch.memory import Memory
from executor.kernels.torch.reader import Reader
from executor.kernels.torch.scores import in_range
from executor.kernels.torch.spans import Span, spans
from executor.kernels.torch.threads import in_threads

GREATEST_TOTAL = 2.0**60
"""Of a row's weights, its greatest score not taken off before the exponential: up to this, and from
one over it on, nothing is lost of them or of what is summed by them."""

_memory = Memory()


def prefill_attention(
    q: torch.Tensor,
    cache: Cache,
    layout: Layout,
    indices: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
) -> None:
    """Attention of q [heads, new tokens, head_dim] to `cache` over the lists of `layout`.

    Writes out, shaped like q, and lse fp32 [heads, new tokens] (natural log-sum-exp of the scaled
    scores) in the rows that `layout` computes, and leaves the others as they are. A row without
    keys gets 0 and -inf. Any strides, head_dim, block and dtype; computed in fp32.
    """
    reader = Reader(cache, layout.block_tokens, layout.piece_tokens)

    def compute(span: Span) -> None:
        at = span.head, slice(span.stored, span.stored + span.new_tokens)
        if span.kind == ALL_PIECES:
            _every_piece(q[at], reader, span, out[at], lse[at])
        elif span.kind == 0:
            out[at], lse[at] = 0.0, -torch.inf
        else:
            chosen = indices[span.start : span.start + span.blocks * span.kind]
            _chosen_pieces(q[at], reader, span, chosen, out[at], lse[at])

    in_threads(
        compute, sorted(spans(layout, q.shape[2]), key=lambda span: -span.tiles(layout.per_block))
    )


def attend(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> Pair:
    """fp32 attention of q [batch, queries, head_dim] to keys, values [batch, tokens, head_dim].

    The queries are the last of the tokens. Output like q, and log-sum-exp [batch, queries].
    """
    before = keys.shape[1] - q.shape[1]
    own, own_lse = flash(q, keys[:, before:], values[:, before:], is_causal=True)
    if not before:
        return own, own_lse
    out, lse = flash(q, keys[:, :before], values[:, :before])
    share = torch.sigmoid(own_lse - lse)
    return out.lerp_(own, share.unsqueeze(-1)), torch.logaddexp(lse, own_lse)


def flash(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, is_causal: bool = False
) -> Pair:
    """PyTorch's kernel: output [batch, queries, head_dim] and log-sum-exp [batch, queries]."""
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q.unsqueeze(1), keys.unsqueeze(1), values.unsqueeze(1), is_causal=is_causal
    )
    return out.squeeze(1), lse.squeeze(1)


def _every_piece(
    q: torch.Tensor, reader: Reader, span: Span, out: torch.Tensor, lse: torch.Tensor
) -> None:
    """A strip of the causal triangle."""
    keys, values = reader.tokens(span)
    result, row_lse = attend(q[None].float().contiguous(), keys[None], values[None])
    out.copy_(result[0])
    lse.copy_(row_lse[0])


def _chosen_pieces(
    q: torch.Tensor,
    reader: Reader,
    span: Span,
    chosen: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
) -> None:
    """Whole query blocks: zeros, computed for nothing, stand for tokens that are not new."""
    block, head_dim = reader.block_tokens, q.shape[1]
    old = span.first_token - span.first * block
    computed = slice(old, old + span.new_tokens)
    blocks = span.blocks, block, head_dim
    in_place = span.new_tokens == span.blocks * block and q.dtype == torch.float32
    if in_place:
        queries, result = q.view(blocks), out.view(blocks)
    else:
        queries = reader.room("queries", blocks).zero_()
        queries.flatten(0, 1)[computed] = q
        # In the place of the queries, which have done their part by then.
        result = queries
    keys = reader.gathered(reader.cache.keys, span, chosen)
    weights, total, greatest = _weights(queries, keys.transpose(1, 2), block)
    values = reader.gathered(reader.cache.values, span, chosen)
    torch.bmm(weights, values, out=result).div_(total)
    if not in_place:
        out.copy_(result.flatten(0, 1)[computed])
    lse.copy_(total.log2_().add_(greatest).mul_(math.log(2)).flatten()[computed])


def _weights(
    queries: torch.Tensor, keys: torch.Tensor, own: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | float]:
    """Unnormalised weights [blocks, rows, tokens] of queries [blocks, rows, head_dim] and keys
    [blocks, head_dim, tokens], whose last `own` are under the causal mask; their sums [blocks,
    rows, 1]; and the powers of two by which both are less than they are."""
    scores = _memory.room("scores", (*queries.shape[:2], keys.shape[2]))
    # exp2 is PyTorch's own; MKL's exp takes nine times as long on some CPUs.
    scale = queries.shape[2] ** -0.5 / math.log(2)
    torch.baddbmm(scores, queries, keys, beta=0, alpha=scale, out=scores)
    weights = torch.exp2(scores, out=scores)
    weights[:, :, -own:].tril_()
    total = weights.sum(2, keepdim=True)
    if in_range(total, 1 / GREATEST_TOTAL, GREATEST_TOTAL):
        return weights, total, 0.0
    # Two passes more, which others are spared.
    torch.baddbmm(scores, queries, keys, beta=0, alpha=scale, out=scores)
    ahead = torch.ones(own, own, dtype=torch.bool).triu_(1)
    scores[:, :, -own:].masked_fill_(ahead, -torch.inf)
    greatest = scores.amax(2, keepdim=True)
    weights = torch.exp2(scores.sub_(greatest), out=scores)
    return weights, weights.sum(2, keepdim=True), greatest
