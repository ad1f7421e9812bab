"""A layer's call as a step of the executor: budgets become lists of pieces to attend to."""

from dataclasses import replace
from functools import lru_cache, partial
from math import isclose

import torch

from executor.attention.backends import DENSE_FROM, Backend, resolve_backend
from executor.attention.block_sparse import AttentionResult, attend, run
from executor.attention.select import pattern
from executor.attention.shares import HeadShare, LayerShares, check_block_sizes
from executor.attention.step import PreparedStep, prepare
from executor.checks import TRITON_SIZES, check_options
from executor.inference.policy import Attended, Chosen, LayerCall
from executor.inference.window import slides, windowed
from executor.kernels.batch import Cache, Chunk, as_pages
from executor.kernels.layout import Layout
from profiles.architecture import Architecture
from profiles.selection import Selection
from profiles.sizes import causal_pieces


class BlockAttention:
    """Attention of single calls, each head within its budget.

    Steps are prepared once for budgets and lengths and the `kept_steps` used last are kept; a
    decoding sequence needs a new one only when it begins a piece. Calls may come from several
    threads.
    """

    def __init__(
        self,
        selection: Selection,
        block_tokens: int,
        piece_tokens: int,
        backend: str,
        watched_rows: int,
        kept_steps: int,
        *,
        as_chosen: bool = False,
    ) -> None:
        check_block_sizes(block_tokens, piece_tokens)
        self._backend = lru_cache(partial(resolve_backend, backend))
        self._backend(torch.device("cpu"))
        check_options(None, watched_rows)
        self.selection = selection
        self.block_tokens, self.piece_tokens = int(block_tokens), int(piece_tokens)
        self.watched_rows = watched_rows
        # What lists capture is seen of lists alone.
        self._as_chosen = as_chosen or watched_rows > 0
        self._step = lru_cache(kept_steps)(self._prepare)
        self._whole = lru_cache(kept_steps)(self._whole_heads)

    def attend(self, call: LayerCall, budgets: tuple[int, ...]) -> Attended:
        """The call with budgets [query_heads] in tokens.

        A single token behind a prefix decodes: the heads of a KV group share a list, as long as the
        largest of their budgets. A window that hides keys makes the call dense within it. Raises
        AttentionError.
        """
        if slides(call):
            return windowed(call, self.block_tokens, self.piece_tokens)
        return self._computed(call, self._whole(budgets, call.keys.shape[0]))

    def attend_shares(self, call: LayerCall, shares: LayerShares) -> Attended:
        """As `attend`, the rows of the shares alone: others are 0. Tiles are those of the shares'
        heads."""
        if not shares:
            return Attended(torch.zeros_like(call.q), 0, 0)
        if slides(call):
            step = self._step(shares, *self._chunk(call), call.q.device)
            return self._windowed_rows(call, shares, step)
        return self._computed(call, shares)

    def _computed(self, call: LayerCall, shares: LayerShares) -> Attended:
        device = call.q.device
        step = self._step(shares, *self._chunk(call), device)
        (chunk,) = step.chunks
        if chunk.decodes:
            step = step.at_context(_length(call.keys.shape[1], device))
        backend = self._backend(device)
        q, cache, bounds = self._tensors(call, chunk, backend)
        watched = self.watched_rows
        if chunk.decodes and backend == "torch":
            # Its tensors fit what was made of them here.
            read = call.sinks is not None
            result = run(
                q, cache, step, backend, bounds=bounds, watched_rows=watched, lse_read=read
            )
        else:
            result = attend(q, cache, step, backend, bounds=bounds, watched_rows=watched)
        out = result.out
        if out.shape[2] != call.q.shape[2]:
            out = out[..., : call.q.shape[2]]
        if call.sinks is not None:
            # e^lse of all that a row gives away goes to its keys.
            kept = torch.sigmoid(result.lse - call.sinks.float()[:, None])
            out = out * kept[..., None].to(out.dtype)
        return Attended(
            out,
            result.counts.tiles,
            len(shares) * self._dense_tiles(chunk),
            _of_heads(result, step),
            None if step.prefill is None else _chosen(step.prefill, result),
        )

    def _windowed_rows(self, call: LayerCall, shares: LayerShares, step: PreparedStep) -> Attended:
        out, tiles = torch.zeros_like(call.q), 0
        for share in shares:
            head, group = slice(share.head, share.head + 1), slice(share.group, share.group + 1)
            for rows in step.spans[share.head]:
                seen = call.cached + rows.stop
                keys, values = call.keys[group, :seen], call.values[group, :seen]
                sinks = None if call.sinks is None else call.sinks[head]
                q = call.q[head, rows]
                part = replace(call, q=q, keys=keys, values=values, sinks=sinks)
                found = windowed(part, self.block_tokens, self.piece_tokens)
                out[head, rows] = found.out
                tiles += found.tiles
        return Attended(out, tiles, tiles)

    def _chunk(self, call: LayerCall) -> tuple[int, int, bool]:
        """What the call's rows are a chunk of: cached and new tokens, and whether it decodes; a
        decoding sequence is taken to fill its last piece."""
        if not call.decodes:
            return call.cached, call.q.shape[1], False
        pieces = -(-call.keys.shape[1] // self.piece_tokens)
        return pieces * self.piece_tokens - 1, 1, True

    def _whole_heads(self, budgets: tuple[int, ...], kv_heads: int) -> LayerShares:
        heads = len(budgets)
        # Patterns follow from the heads alone.
        shape = Architecture(
            layers=1, query_heads=heads, kv_heads=kv_heads, head_dim=1, hidden_size=heads
        )
        patterns = [
            pattern(self.selection, shape, group, self.piece_tokens) for group in range(kv_heads)
        ]
        return LayerShares(
            HeadShare(head, shape.kv_head(head), budget, pattern=patterns[shape.kv_head(head)])
            for head, budget in enumerate(budgets)
        )

    def _prepare(
        self,
        shares: LayerShares,
        cached_tokens: int,
        new_tokens: int,
        decodes: bool,
        device: torch.device,
    ) -> PreparedStep:
        return prepare(
            shares,
            [Chunk(cached_tokens, new_tokens, decodes)],
            self.block_tokens,
            device,
            piece_tokens=self.piece_tokens,
            dense_from=1.0 if self._as_chosen else DENSE_FROM[self._backend(device)],
        )

    def _tensors(
        self, call: LayerCall, chunk: Chunk, backend: Backend
    ) -> tuple[torch.Tensor, Cache, torch.Tensor | None]:
        """q and the cache as the kernels want them, and the bounds of its pages, where kept.

        They scale logits by head_dim^-0.5, so that q carries what the model's own scaling differs
        by; Triton's tiles are powers of two wide, so that zeros fill up other head_dims. Decoding
        wants pages of whole pieces: where keys are held in no room that has them, they are copied.
        """
        size = wide = call.q.shape[2]
        if backend == "triton":
            wide = max(TRITON_SIZES["head_dim"][0], 1 << (size - 1).bit_length())
        factor = call.scaling * wide**0.5
        q = call.q if isclose(factor, 1.0, rel_tol=1e-9) else call.q * factor
        q = _padded(q, wide - size, 0)
        if chunk.decodes and call.held is not None and wide == size:
            pages = call.held.pages(call.keys.shape[1], self.piece_tokens)
            if pages is not None:
                return q, *pages
        room = chunk.total_tokens - call.keys.shape[1]
        keys, values = (_padded(x, wide - size, room) for x in (call.keys, call.values))
        starts = torch.zeros(1, dtype=torch.int32, device=q.device)
        cache = Cache(keys, values, starts=starts)
        if chunk.decodes:
            cache = as_pages(cache, (chunk,), self.piece_tokens)
        return q, cache, None

    def _dense_tiles(self, chunk: Chunk) -> int:
        """Of one head, with every causal piece."""
        pieces = -(-chunk.total_tokens // self.piece_tokens)
        if chunk.decodes:
            return pieces
        last = -(-chunk.total_tokens // self.block_tokens)
        first = chunk.cached_tokens // self.block_tokens
        own = self.block_tokens // self.piece_tokens
        return causal_pieces(pieces, last, own) - causal_pieces(pieces, first, own)


@lru_cache(64)
def _length(tokens: int, device: torch.device) -> torch.Tensor:
    """The length of a lone sequence, int32 [1]: the same in all layers."""
    return torch.full((1,), tokens, dtype=torch.int32, device=device)


def _padded(x: torch.Tensor, columns: int, rows: int) -> torch.Tensor:
    """x [heads, rows, columns] and so many more, zeros."""
    return torch.nn.functional.pad(x, (0, columns, 0, rows)) if columns or rows else x


def _chosen(layout: Layout, result: AttentionResult) -> Chosen:
    assert result.indices is not None  # selection fills them wherever there is a prompt
    return Chosen(layout, result.indices)


def _of_heads(result: AttentionResult, step: PreparedStep) -> torch.Tensor | None:
    """Recovery [query_heads] of an entry each in prefill, of a list's heads together in decode."""
    if result.recovery is None:
        return None
    found = result.recovery.new_full((step.heads,), torch.nan)
    heads: list[tuple[int, ...]] = []
    heads += [(rows.head,) for rows in step.prefill.heads] if step.prefill else []
    heads += [entry.heads for entry in step.decode.lists] if step.decode else []
    for of_entry, members in zip(result.recovery, heads, strict=True):
        found[list(members)] = of_entry
    return found
