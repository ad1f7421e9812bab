"""Whether tensors fit the step they are given to."""

import torch

from executor.attention.backends import Backend
from executor.attention.counts import SCORED
from executor.attention.shares import whole
from executor.attention.step import PreparedStep
from executor.errors import AttentionError
from executor.kernels.batch import Cache
from executor.kernels.chip import chip_of

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TRITON_SIZES = {"head_dim": (16, 256), "block_tokens": (16, 128), "piece_tokens": (16, 128)}


def check_tensors(
    q: torch.Tensor, cache: Cache, step: PreparedStep, bounds: torch.Tensor | None
) -> None:
    """Raises AttentionError where q, the cache or the bounds do not fit the step or each other."""
    tokens = sum(chunk.new_tokens for chunk in step.chunks)
    if q.ndim != 3 or q.shape[1] != tokens or q.shape[0] < step.heads or not q.shape[2]:
        raise AttentionError(
            f"q: shape {list(q.shape)} must be [heads, new tokens, head_dim] with at least "
            f"{step.heads} heads and the step's {tokens} new tokens"
        )
    if (cache.starts is None) == (cache.pages is None):
        raise AttentionError("cache: exactly one of starts and pages must be given")
    rank = 3 if cache.pages is None else 4
    shape = "[groups, tokens, head_dim]"
    if rank == 4:
        shape = f"[pages, groups, a multiple of {step.piece_tokens}, head_dim]"
    for name, x in (("cache.keys", cache.keys), ("cache.values", cache.values)):
        fits = x.ndim == rank and x.shape[-1] == q.shape[2] and x.shape[rank - 3] >= step.groups
        if not fits or (rank == 4 and (not x.shape[2] or x.shape[2] % step.piece_tokens)):
            raise AttentionError(
                f"{name}: shape {list(x.shape)} must be {shape} with at least {step.groups} groups "
                f"and q's head_dim {q.shape[2]}"
            )
        if x.dtype != q.dtype or x.device != q.device:
            raise AttentionError(
                f"{name}: {x.dtype} on {x.device} must be q's {q.dtype} on {q.device}"
            )
    if q.dtype not in DTYPES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise AttentionError(f"q: {q.dtype} must be one of {known}")
    if cache.keys.shape != cache.values.shape:
        raise AttentionError(
            f"cache.values: shape {list(cache.values.shape)} is not the keys' "
            f"{list(cache.keys.shape)}"
        )
    if step.context_tokens.device != q.device:
        raise AttentionError(
            f"step: was prepared for {step.context_tokens.device}, but q is on {q.device}"
        )
    _check_room(cache, step)
    _check_bounds(bounds, cache, step.piece_tokens)


def _check_bounds(bounds: torch.Tensor | None, cache: Cache, piece_tokens: int) -> None:
    if bounds is None:
        return
    pages, groups, size, head_dim = cache.keys.shape if cache.pages is not None else (0, 0, 0, 0)
    wanted, keys = [pages * (size // piece_tokens), groups, 2, head_dim], cache.keys
    fits = list(bounds.shape) == wanted and bounds.device == keys.device
    if not fits or bounds.dtype != keys.dtype:
        raise AttentionError(
            f"bounds: {bounds.dtype} of shape {list(bounds.shape)} on {bounds.device} must be the "
            f"paged cache's [pieces, groups, 2, head_dim], {keys.dtype} of {wanted} on "
            f"{keys.device}"
        )


def _check_room(cache: Cache, step: PreparedStep) -> None:
    where, table = ("starts", cache.starts) if cache.pages is None else ("pages", cache.pages)
    assert table is not None
    rank = 1 if cache.pages is None else 2
    here = table.dtype == torch.int32 and table.device == cache.keys.device
    if not here or table.ndim != rank or table.shape[0] != len(step.chunks):
        raise AttentionError(
            f"cache.{where}: {table.dtype} of shape {list(table.shape)} on {table.device} must be "
            f"int32 of {rank} dimensions on the keys' device, with one row for each of the "
            f"{len(step.chunks)} sequences"
        )
    longest = max((chunk.total_tokens for chunk in step.chunks), default=0)
    if cache.pages is None:
        if cache.keys.shape[1] < longest:
            raise AttentionError(
                f"cache.keys: {cache.keys.shape[1]} tokens, but a sequence has {longest}"
            )
        if step.decode is not None:
            raise AttentionError("cache: decoding needs pages; kernels.batch.as_pages makes them")
        return
    if step.decode is not None:
        longest = max(longest, step.decode.most_pieces * step.piece_tokens)
    pages = -(-longest // cache.page_tokens)
    if cache.pages.shape[-1] < pages:
        raise AttentionError(
            f"cache.pages: {cache.pages.shape[-1]} pages a sequence, but the step has room for "
            f"{pages}"
        )


def check_options(sms: int | None, watched_rows: int) -> None:
    """Raises AttentionError for numbers that are none."""
    if sms is not None and (not whole(sms) or sms < 1):
        raise AttentionError(f"sms: {sms!r} must be a whole number, at least 1")
    if not whole(watched_rows) or watched_rows < 0:
        raise AttentionError(f"watched_rows: {watched_rows!r} must be a whole number, at least 0")


def check_backend(q: torch.Tensor, step: PreparedStep, backend: Backend) -> None:
    """Raises AttentionError for sizes or a device that the back end cannot serve."""
    if backend == "torch":
        if q.device.type != "cpu":
            raise AttentionError(f"q: is on {q.device}, but the torch back end computes on the CPU")
        return
    sizes = {
        "head_dim": q.shape[2],
        "block_tokens": step.block_tokens,
        "piece_tokens": step.piece_tokens,
    }
    for name, value in sizes.items():
        least, most = TRITON_SIZES[name]
        if value.bit_count() != 1 or not least <= value <= most:
            raise AttentionError(
                f"{name}: {value} must be a power of two from {least} to {most} for triton"
            )
    # What the torch back end, which needs no Triton, has no use for.
    from executor.kernels.triton import decode, prefill
    from executor.kernels.triton.top_pieces import MOST_PIECES

    chip = chip_of(q.device)
    has = f"more shared memory than a program has here, {chip.program_bytes} bytes"
    kind = f"q: {str(q.dtype).removeprefix('torch.')} with head_dim {q.shape[2]}"
    tma = chip.tma and prefill.long_enough(step.block_tokens, step.piece_tokens)
    if step.prefill and not prefill.fits(
        step.block_tokens, q.shape[2], q.element_size(), chip, tma
    ):
        raise AttentionError(
            f"{kind} and blocks of {step.block_tokens} takes {has}: use smaller blocks, or bfloat16"
        )
    widest = step.decode.heads.shape[1] if step.decode else 0
    if widest and not decode.fits(q.shape[2], q.element_size(), widest, chip):
        raise AttentionError(
            f"{kind} and lists of {widest} query heads each takes {has}: give every query head a "
            "list of its own (prepare(packed=False)), or use bfloat16"
        )
    pieces = _most_scored(step)
    if pieces > MOST_PIECES:
        raise AttentionError(
            f"piece_tokens: {step.piece_tokens} makes {pieces} pieces of the longest sequence that "
            f"is chosen from; triton chooses among {MOST_PIECES} at most: use larger pieces"
        )


def _most_scored(step: PreparedStep) -> int:
    """The longest row of scores that choosing makes, in pieces."""
    prefill, decode, most = step.prefill, step.decode, 0
    if prefill:
        scored = [x for x in prefill.heads if isinstance(x.pattern, SCORED) and prefill.stores(x)]
        most = max((prefill.grid(x.sequence).pieces for x in scored), default=0)
    if decode and any(
        isinstance(entry.pattern, SCORED) and entry.budget_pieces < decode.most_pieces
        for entry in decode.lists
    ):
        most = max(most, decode.most_pieces)
    return most
