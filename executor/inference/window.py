"""Exact sliding-window attention in strips of rows: what a windowed layer computes, no more.

Budgets say nothing beyond a window: the tokens behind it are no part of the layer.
"""

import torch

from executor.inference.policy import Attended, LayerCall

STRIP_ROWS = 512


def slides(call: LayerCall) -> bool:
    """Whether the window hides a key from any row, or may have hidden one that is gone already.

    A sliding cache keeps no more keys than the window, so that a full window looks like a short
    sequence.
    """
    return call.window is not None and call.window <= call.keys.shape[1]


def windowed(call: LayerCall, block_tokens: int, piece_tokens: int) -> Attended:
    """Attention of every row to the last `call.window` keys up to its own.

    The tiles counted are the query blocks with the pieces that the window touches, computed and
    dense alike. Memory is that of STRIP_ROWS x (STRIP_ROWS + window).
    """
    assert call.window is not None
    heads, new, head_dim = call.q.shape
    groups = call.keys.shape[0]
    out = torch.empty_like(call.q)
    for begin in range(0, new, STRIP_ROWS):
        end = min(begin + STRIP_ROWS, new)
        first, last = max(0, call.cached + begin - call.window + 1), call.cached + end
        row = torch.arange(call.cached + begin, last, device=call.q.device)[:, None]
        key = torch.arange(first, last, device=call.q.device)
        seen = (key <= row) & (key > row - call.window)
        mask = seen.repeat(heads // groups, 1)
        keys, values = call.keys[:, first:last], call.values[:, first:last]
        if call.sinks is not None:
            # A key of zeros, whose logit is the sink's.
            keys, values = (torch.nn.functional.pad(x, (0, 0, 0, 1)) for x in (keys, values))
            logits = torch.zeros_like(mask, dtype=call.q.dtype).masked_fill(~mask, -torch.inf)
            sinks = call.sinks.to(call.q.dtype).view(groups, -1, 1)
            sinks = sinks.expand(-1, -1, end - begin).reshape(groups, -1, 1)
            mask = torch.cat([logits.expand(groups, -1, -1), sinks], 2)
        strip = torch.nn.functional.scaled_dot_product_attention(
            call.q[:, begin:end].reshape(groups, -1, head_dim),
            keys,
            values,
            attn_mask=mask,
            scale=call.scaling,
        )
        out[:, begin:end] = strip.view(heads, end - begin, head_dim)
    tiles = heads * touched_tiles(call.cached, new, call.window, block_tokens, piece_tokens)
    return Attended(out, tiles, tiles)


def touched_tiles(cached: int, new: int, window: int, block_tokens: int, piece_tokens: int) -> int:
    """(query block, piece of keys) with a visible pair of tokens, for `new` rows after `cached`.

    >>> touched_tiles(0, 64, window=17, block_tokens=16, piece_tokens=16)  # own and the one before
    7
    >>> touched_tiles(99, 1, window=17, block_tokens=16, piece_tokens=16)  # keys 83 to 99
    2
    >>> touched_tiles(99, 1, window=17, block_tokens=16, piece_tokens=4)
    5
    """
    total, tiles = cached + new, 0
    for block in range(cached // block_tokens, -(-total // block_tokens)):
        oldest = max(0, max(cached, block * block_tokens) - window + 1)
        newest = min(total, (block + 1) * block_tokens) - 1
        tiles += newest // piece_tokens - oldest // piece_tokens + 1
    return tiles
