"""Problems to check and time: tensors on the device, layouts, and the calls on them."""

# Parts of torch have no types for mypy to check.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from executor.attention.block_sparse import allowed_tma
from executor.attention.lists import lay_out
from executor.kernels.batch import Cache, Chunk, query_starts
from executor.kernels.chip import H100, chip_of
from executor.kernels.layout import HeadBlocks, Layout
from executor.kernels.patterns import POOLED, Pattern
from executor.kernels.select import select
from executor.kernels.triton.prefill import prefill_attention, programs_at_once


@dataclass(frozen=True)
class Shape:
    """Heads of one layer."""

    query_heads: int
    kv_heads: int
    head_dim: int = 128

    @property
    def group_size(self) -> int:
        return self.query_heads // self.kv_heads


LLAMA_8B = Shape(32, 8)
TINY = Shape(4, 2, 16)


class Tile(NamedTuple):
    """Tokens of a query block, whose rows share a list, and of the pieces of keys it names."""

    block: int
    piece: int

    @classmethod
    def square(cls, block: int) -> "Tile":
        """A piece as long as a block."""
        return cls(block, block)

    @classmethod
    def of(cls, name: str) -> "Tile":
        """As in `64x16`."""
        return cls(*map(int, name.split("x")))

    @property
    def per_block(self) -> int:
        return self.block // self.piece

    def __str__(self) -> str:
        return f"{self.block}x{self.piece}"


@dataclass(frozen=True, eq=False)
class Tensors:
    """q, out [heads, tokens, head_dim], lse [heads, tokens] and the keys and values."""

    q: torch.Tensor
    cache: Cache
    out: torch.Tensor
    lse: torch.Tensor


def drawn(
    shape: Shape,
    chunks: Sequence[Chunk],
    *,
    device: torch.device,
    dtype: torch.dtype,
    page_tokens: int = 0,
    seed: int = 0,
    scale: float = 1.0,
    gaps: bool = False,
) -> Tensors:
    """Random tensors for `chunks`; outputs NaN.

    Without pages sequences stand one right behind the other. Pages are shuffled; with `gaps` NaN
    lies in them behind a sequence's last token.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, device=device, dtype=dtype)

    q = normal(shape.query_heads, query_starts(tuple(chunks))[-1], shape.head_dim)
    totals = [chunk.total_tokens for chunk in chunks]
    if page_tokens:
        cache = _paged(normal, shape, totals, page_tokens, seed, gaps)
    else:
        size = (shape.kv_heads, sum(totals), shape.head_dim)
        starts = torch.tensor([0, *totals[:-1]]).cumsum(0).int().to(device)
        cache = Cache(normal(*size), normal(*size), starts=starts)
    cache.keys.mul_(scale)
    lse = torch.full(q.shape[:2], torch.nan, device=device)
    return Tensors(q, cache, torch.full_like(q, torch.nan), lse)


def _paged(
    normal: Callable[..., torch.Tensor],
    shape: Shape,
    totals: Sequence[int],
    page_tokens: int,
    seed: int,
    gaps: bool,
) -> Cache:
    counts = [-(-total // page_tokens) for total in totals]
    size = (sum(counts), shape.kv_heads, page_tokens, shape.head_dim)
    keys, values = normal(*size), normal(*size)
    order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(seed)).int()
    pages = order.split(counts)
    if gaps:
        for page, total in zip(pages, totals, strict=True):
            for pool in (keys, values):
                pool[int(page[-1]), :, (total - 1) % page_tokens + 1 :] = torch.nan
    table = torch.nn.utils.rnn.pad_sequence(list(pages), batch_first=True)
    return Cache(keys, values, pages=table.to(keys.device))


def whole_heads(
    shape: Shape,
    budgets: Sequence[int] | int,
    query_blocks: int,
    pattern: Pattern = POOLED,
) -> list[HeadBlocks]:
    """Every head with all of its rows; budgets in pieces, one for each or for all."""
    each = [budgets] * shape.query_heads if isinstance(budgets, int) else budgets
    return [
        HeadBlocks(head, head // shape.group_size, budget, 0, query_blocks, pattern=pattern)
        for head, budget in enumerate(each)
    ]


@dataclass(frozen=True, eq=False)
class Problem:
    """One prefill on one set of tensors, its pieces chosen."""

    tensors: Tensors
    layout: Layout
    indices: torch.Tensor

    @classmethod
    def of(cls, tensors: Tensors, layout: Layout) -> "Problem":
        return cls(tensors, layout, select(tensors.q, tensors.cache, layout))

    def choose(self) -> torch.Tensor:
        return select(self.tensors.q, self.tensors.cache, self.layout)

    def attend(self, sms: int | None = None) -> None:
        """Attention over the pieces chosen when the problem was made."""
        self._attend(self.indices, sms)

    def choose_and_attend(self) -> None:
        self._attend(self.choose(), None)

    def _attend(self, indices: torch.Tensor, sms: int | None) -> None:
        x = self.tensors
        tma = allowed_tma()
        prefill_attention(x.q, x.cache, self.layout, indices, x.out, x.lse, sms=sms, tma=tma)

    @property
    def flops(self) -> int:
        """Of the tiles computed, those on the diagonal counted whole."""
        pairs = self.layout.block_tokens * self.layout.piece_tokens
        return 4 * pairs * self.tensors.q.shape[2] * self.layout.tiles

    @property
    def density(self) -> float:
        """Of all causal tiles, those computed; every head's rows are whole."""
        grid, heads = self.layout.grid(0), len(self.layout.heads)
        every = grid.causal(0, self.layout.lists // heads).sum()
        return self.layout.tiles / (heads * int(every))


def problems(
    shape: Shape,
    tokens: int,
    tile: Tile,
    budgets: Sequence[int] | int,
    *,
    device: torch.device,
    sets: int = 1,
    page_tokens: int = 0,
    pattern: Pattern = POOLED,
    pack: bool | None = None,
) -> list[Problem]:
    """One prompt of `tokens` with whole heads, on `sets` rotated inputs; budgets in pieces."""
    chunks = (Chunk(0, tokens),)
    heads = whole_heads(shape, budgets, -(-tokens // tile.block), pattern)
    layout = lay_out(heads, chunks, tile.block, device, piece_tokens=tile.piece, pack=pack)
    dtype = usual_dtype(device)
    return [
        Problem.of(
            drawn(shape, chunks, device=device, dtype=dtype, page_tokens=page_tokens, seed=seed),
            layout,
        )
        for seed in range(sets)
    ]


def multiprocessors(device: torch.device) -> int:
    """Of the GPU; the interpreter stands for an H100."""
    return chip_of(device).multiprocessors if device.type == "cuda" else H100.multiprocessors


def programs(device: torch.device, tile: Tile, head_dim: int, item_bytes: int = 2) -> int:
    """Lists that the GPU computes at once: longer ones than their fair part are cut."""
    at_once = programs_at_once(device, *tile, head_dim, item_bytes)
    return at_once if device.type == "cuda" else at_once * H100.multiprocessors


def usual_dtype(device: torch.device) -> torch.dtype:
    """bf16; Triton's interpreter cannot compute in it."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def prompt_bytes(shape: Shape, tokens: int, item_bytes: int = 2) -> int:
    """Of q, out, keys and values of one prompt."""
    return 2 * (shape.query_heads + shape.kv_heads) * tokens * shape.head_dim * item_bytes
