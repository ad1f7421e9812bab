"""The attention of one device's share of a layer: select blocks, then compute them."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch

from executor.kernels import cpu
from executor.kernels.select import BlockLists, HeadRows, causal_tiles, select_blocks
from profiles.errors import HplbError, UnknownNameError

Backend = Literal["torch", "triton"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TRITON_SIZES = {"head_dim": (16, 256), "block_tokens": (16, 128)}
SHARE_ROUNDING = 1e-9
"""What sums of shares may be off by: they are sums of floats."""


class AttentionError(HplbError):
    """Tensors, shares or block size that do not fit each other or the back end."""


@dataclass(frozen=True)
class HeadShare:
    """A device's part of one query head.

    `head` indexes the local q, `group` the local k and v; `rows` is the range of cumulative
    shares, (0, 1) the whole head.
    """

    head: int
    group: int
    budget_tokens: int
    rows: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Counts:
    """Work done, in the units of `profiles.cost.work`; `scored_blocks` counts causal pairs."""

    query_blocks: int
    tiles: int
    scored_blocks: int


@dataclass(frozen=True, eq=False)
class AttentionResult:
    """out [shares, tokens, head_dim] in q's dtype and lse [shares, tokens], natural log, fp32.

    Rows outside a share's range are 0 in `out` and -inf in `lse`: what a merge by log-sum-exp
    leaves out.
    """

    out: torch.Tensor
    lse: torch.Tensor
    counts: Counts
    lists: BlockLists


def resolve_backend(name: str) -> Backend:
    """The back end called `name`; "auto" is triton where there is a CUDA device, else torch.

    Raises UnknownNameError.
    """
    if name == "auto":
        return "triton" if torch.cuda.is_available() else "torch"
    for backend in BACKENDS:
        if name == backend:
            return backend
    raise UnknownNameError(f"unknown back end {name!r}: known are auto, {', '.join(BACKENDS)}")


@torch.no_grad()
def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    shares: Sequence[HeadShare],
    block_tokens: int,
    backend: str = "auto",
) -> AttentionResult:
    """Causal prefill attention of q [heads, tokens, head_dim] to k, v [groups, tokens, head_dim].

    Raises AttentionError where the arguments do not fit each other, UnknownNameError for a back
    end nobody has heard of.
    """
    chosen = resolve_backend(backend)
    _check_tensors(q, k, v)
    _check_sizes(q, block_tokens, chosen)
    for number, share in enumerate(shares):
        _check_share(share, number, q.shape[0], k.shape[0])
    query_blocks = -(-q.shape[1] // block_tokens)
    heads = [_head_rows(share, query_blocks, block_tokens) for share in shares]
    lists = select_blocks(q, k, heads, block_tokens)
    out = q.new_zeros(len(shares), *q.shape[1:])
    lse = q.new_full(out.shape[:2], -torch.inf, dtype=torch.float32)
    if chosen == "triton":
        # A machine without Triton still has the torch back end.
        from executor.kernels import prefill

        prefill.prefill(q, k, v, lists, out, lse)
    else:
        cpu.prefill(q, k, v, lists, out, lse)
    return AttentionResult(out, lse, _count_work(heads, query_blocks), lists)


def row_boundary(cumulative_share: float, budget_blocks: int, query_blocks: int) -> int:
    """The query block before which a head's first `cumulative_share` of tiles lies, to the nearest.

    Equal shares give equal boundaries, so that ranges which meet in their shares meet in rows.

    >>> row_boundary(0.5, budget_blocks=100, query_blocks=100)  # causal work is a triangle
    71
    >>> row_boundary(0.5, budget_blocks=1, query_blocks=100)
    50
    """
    tiles = partial(causal_tiles, budget_blocks)
    wanted = cumulative_share * tiles(query_blocks)
    above = bisect_left(range(query_blocks), wanted, key=tiles)
    nearer_below = above > 0 and wanted - tiles(above - 1) < tiles(above) - wanted
    return above - 1 if nearer_below else above


def _head_rows(share: HeadShare, query_blocks: int, block_tokens: int) -> HeadRows:
    budget_blocks = min(-(-share.budget_tokens // block_tokens), query_blocks)
    first, last = (row_boundary(edge, budget_blocks, query_blocks) for edge in share.rows)
    return HeadRows(share.head, share.group, budget_blocks, first, last)


def _count_work(heads: Sequence[HeadRows], query_blocks: int) -> Counts:
    def between(rows: HeadRows, budget_blocks: int) -> int:
        return causal_tiles(budget_blocks, rows.last) - causal_tiles(budget_blocks, rows.first)

    return Counts(
        query_blocks=sum(rows.last - rows.first for rows in heads),
        tiles=sum(between(rows, rows.budget_blocks) for rows in heads),
        scored_blocks=sum(
            between(rows, query_blocks) for rows in heads if rows.budget_blocks < query_blocks
        ),
    )


def _check_tensors(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 3 or not x.numel():
            raise AttentionError(
                f"{name}: shape {list(x.shape)} must be [heads or groups, tokens, head_dim], none 0"
            )
        if x.dtype not in DTYPES or x.dtype != q.dtype:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise AttentionError(f"{name}: {x.dtype} must be one of {known}, and q's ({q.dtype})")
        if x.device != q.device:
            raise AttentionError(f"{name}: is on {x.device}, but q is on {q.device}")
    if k.shape[1:] != q.shape[1:]:
        raise AttentionError(
            f"k: [tokens, head_dim] is {list(k.shape[1:])}, but q's is {list(q.shape[1:])}"
        )
    if v.shape != k.shape:
        raise AttentionError(f"v: shape {list(v.shape)} is not k's {list(k.shape)}")


def _check_sizes(q: torch.Tensor, block_tokens: int, backend: Backend) -> None:
    if not _whole(block_tokens) or block_tokens < 1:
        raise AttentionError(f"block_tokens: {block_tokens!r} must be a whole number, at least 1")
    if backend == "torch":
        if q.device.type != "cpu":
            raise AttentionError(f"q: is on {q.device}, but the torch back end computes on the CPU")
        return
    sizes = {"head_dim": q.shape[2], "block_tokens": block_tokens}
    for name, value in sizes.items():
        least, most = TRITON_SIZES[name]
        if value.bit_count() != 1 or not least <= value <= most:
            raise AttentionError(
                f"{name}: {value} must be a power of two from {least} to {most} for triton"
            )


def _check_share(share: HeadShare, number: int, heads: int, groups: int) -> None:
    for name, index, size in (("head", share.head, heads), ("group", share.group, groups)):
        if not _whole(index) or not 0 <= index < size:
            raise AttentionError(f"shares[{number}].{name}: {index!r} is not in 0..{size - 1}")
    if not _whole(share.budget_tokens) or share.budget_tokens < 1:
        raise AttentionError(
            f"shares[{number}].budget_tokens: {share.budget_tokens!r} must be a whole number, "
            "at least 1"
        )
    first, last = share.rows
    if not 0 <= first < last <= 1 + SHARE_ROUNDING:
        raise AttentionError(
            f"shares[{number}].rows: {share.rows} must be two cumulative shares, "
            "0 <= first < last <= 1"
        )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
