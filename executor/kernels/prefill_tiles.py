"""The tiles of prefill: where a key block lies, how it is read, and the one that needs a mask."""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import triton
import triton.language as tl

from executor.kernels.softmax import absorb, begin


@triton.jit
def own_block(
    q,
    k_at,
    v_at,
    group,
    place_at,
    place_block,
    base,
    indices_ptr,
    start,
    position,
    some,
    row,
    token,
    total_tokens,
    scale_log2,
    result,
    total,
    largest,
    BLOCK: tl.constexpr,
    KEYS: tl.constexpr,
    PAGED: tl.constexpr,
    TMA: tl.constexpr,
    FIRST: tl.constexpr,
):
    """The state after a list's last block, at `position`, which alone needs a mask.

    Its last part goes first: it alone may reach behind the sequence's end.
    """
    within = tl.arange(0, KEYS)
    block = tl.load(indices_ptr + start + position, mask=some & (start >= 0), other=position)
    block = tl.where(some, block, row)
    place = place_of(place_at, place_block, base, block, BLOCK, PAGED)
    block_token = block * BLOCK
    end = tl.minimum(total_tokens - block_token, BLOCK) - 1
    part = end // KEYS * KEYS
    seen = block_token + part + within
    filled = (seen < total_tokens)[:, None]
    k = tile_of(k_at, group, place, part, filled, PAGED, TMA)
    scores = masked_scores(q, k, seen, token, some)
    # What lies behind the end may be NaN, and 0 * NaN would reach the result.
    v = tl.where(filled, tile_of(v_at, group, place, part, filled, PAGED, TMA), 0.0)
    if FIRST:
        result, total, largest = begin(scores, v, scale_log2)
    else:
        result, total, largest = absorb(scores, v, scale_log2, result, total, largest, True)
    if KEYS < BLOCK:
        for lower in tl.range(0, part, KEYS, num_stages=1):
            k = tile_of(k_at, group, place, lower, None, PAGED, TMA)
            v = tile_of(v_at, group, place, lower, None, PAGED, TMA)
            scores = masked_scores(q, k, block_token + lower + within, token, some)
            result, total, largest = absorb(scores, v, scale_log2, result, total, largest, True)
    return result, total, largest


@triton.jit
def computed_rows(entry_at, token, VOLATILE: tl.constexpr):
    """Head, indices in q and whether they are computed of an entry's tokens [queries]."""
    head = tl.load(entry_at, volatile=VOLATILE).to(tl.int64)
    origin = tl.load(entry_at + 3, volatile=VOLATILE)
    cached_tokens = tl.load(entry_at + 4, volatile=VOLATILE)
    total_tokens = tl.load(entry_at + 5, volatile=VOLATILE)
    stored = (token >= cached_tokens) & (token < total_tokens)
    return head, (origin + token).to(tl.int64), stored


@triton.jit
def place_of(place_at, place_block, base, block, BLOCK: tl.constexpr, PAGED: tl.constexpr):
    """A block's page, or the token of a contiguous cache at which it begins."""
    if PAGED:
        return tl.load(place_at + block * place_block)
    else:
        return base + block * BLOCK


@triton.jit
def masked_scores(q, k, seen, token, some):
    """Scores [queries, keys]; -inf where key `seen` comes after the query's `token`."""
    scores = tl.dot(q, k.T, input_precision="tf32x3")
    return tl.where((seen[None, :] <= token[:, None]) & some, scores, float("-inf"))


@triton.jit
def tile_of(tensor, group, place, part, filled, PAGED: tl.constexpr, TMA: tl.constexpr):
    """Keys or values [KEYS, head_dim] from token `part` of a block on.

    tensor: where the group begins (or a descriptor), offsets within a tile, strides of page and
    token. `filled` masks what pointers may not read; a descriptor reads it all.
    """
    source, within, page_step, token_step = tensor
    if TMA:
        if PAGED:
            rows = source.load([place, group, part, 0])
        else:
            rows = source.load([group, place + part, 0])
        return rows.reshape(within.shape[0], within.shape[1])
    else:
        if PAGED:
            source += place.to(tl.int64) * page_step + part * token_step
        else:
            source += (place + part).to(tl.int64) * token_step
        return tl.load(source + within, mask=filled, other=None if filled is None else 0.0)
