"""Other people's attention on the same tensors: PyTorch's SDPA, FlexAttention, FlashInfer.

Each maker returns a call without arguments; what a peer cannot do raises, and is recorded as such.
Lists are of square tiles, which is what their masks know. q [heads, tokens, head_dim], keys and
values [groups, tokens, head_dim], one sequence.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu.scene import Problem
from executor.kernels.layout import ALL_PIECES, Layout

Call = Callable[[], torch.Tensor]
SDPA = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def sdpa_backends() -> dict[str, SDPBackend]:
    """What is worth comparing with: on a CPU the only one there is."""
    return SDPA if torch.cuda.is_available() else {"math": SDPBackend.MATH}


def sdpa(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, backend: SDPBackend, causal: bool
) -> Call:
    """Dense attention; tensors may have a leading batch, [batch, heads, tokens, head_dim]."""
    q, keys, values = (x if x.ndim == 4 else x[None] for x in (q, keys, values))

    def call() -> torch.Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q, keys, values, is_causal=causal, enable_gqa=True)

    return call


def causal(
    _batch: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
) -> torch.Tensor:
    """FlexAttention's mask of what a query may see."""
    return query >= key


def flex_dense(problem: Problem) -> Call:
    """Causal FlexAttention in its default blocks of 128 tokens."""
    tokens, device = problem.tensors.q.shape[1], problem.tensors.q.device
    blocks = -(-tokens // 128)
    row = torch.arange(blocks, device=device, dtype=torch.int32)
    mask = block_mask(
        own=row[None, :, None],
        others=row.expand(1, blocks, blocks),
        count=row[None],
        block_tokens=128,
        tokens=tokens,
    )
    return _flex(problem, mask, {})


def flex_plan(problem: Problem, width: int | None = None) -> BlockMask:
    """A BlockMask of exactly the problem's lists: its own blocks masked, all others full.

    Padded to the longest list unless a `width` is given, and without what only a backward pass
    reads: as little planning as FlexAttention can do with.
    """
    layout = problem.layout
    heads, size = problem.tensors.q.shape[0], layout.block_tokens
    width = width or layout.longest
    assert [rows.head for rows in layout.heads] == list(range(heads))
    chosen = padded_lists(layout, problem.indices, width).view(heads, -1, width)
    own = layout.query_block.view(heads, -1)
    mask_mod = causal
    if chosen.device.type == "cpu":
        mask_mod = partial(_listed, _dense(chosen, layout.length.view(heads, -1)), size)
    tokens = problem.tensors.q.shape[1]
    return block_mask(
        own[..., None],
        chosen,
        layout.length.view(heads, -1) - 1,
        block_tokens=size,
        tokens=tokens,
        mask_mod=mask_mod,
    )


def flex(problem: Problem, mask: BlockMask) -> Call:
    size = problem.layout.block_tokens
    # Its default tile of 128 query rows does not fit blocks of 64.
    return _flex(problem, mask, {"BLOCK_M": size, "BLOCK_N": 64} if size < 128 else {})


def padded_lists(layout: Layout, indices: torch.Tensor, width: int) -> torch.Tensor:
    """Every list's blocks, int32 [lists, width]; what follows its end means nothing."""
    place = torch.arange(width, device=indices.device, dtype=torch.int32)
    start = layout.start[:, None]
    stored = indices if len(indices) else indices.new_zeros(1)
    at = (start + place).clamp(0, len(stored) - 1)
    return torch.where(start == ALL_PIECES, place, stored[at])


def block_mask(
    own: torch.Tensor,
    others: torch.Tensor,
    count: torch.Tensor,
    *,
    block_tokens: int,
    tokens: int,
    mask_mod: Callable[..., torch.Tensor] = causal,
) -> BlockMask:
    """Of every query block the own block under `mask_mod`, and `count` others in full.

    own [heads, query blocks, at least 1], count [heads, query blocks], others [heads, query blocks,
    most]: what stands behind the own one, or the count, means nothing.
    """
    return BlockMask(
        seq_lengths=(tokens, tokens),
        kv_num_blocks=torch.ones_like(own[..., 0])[None],
        kv_indices=own[None].contiguous(),
        full_kv_num_blocks=count[None].int(),
        full_kv_indices=others[None].contiguous(),
        q_num_blocks=None,
        q_indices=None,
        full_q_num_blocks=None,
        full_q_indices=None,
        BLOCK_SIZE=(block_tokens, block_tokens),
        mask_mod=mask_mod,
    )


def _listed(
    allowed: torch.Tensor,
    size: int,
    _batch: torch.Tensor,
    head: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
) -> torch.Tensor:
    """Uncompiled FlexAttention goes by the function alone, so there it says everything."""
    return allowed[head, query // size, key // size] & (query >= key)


def _dense(chosen: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """bool [heads, rows, rows]."""
    rows = chosen.shape[1]
    inside = torch.arange(chosen.shape[2], device=chosen.device) < length[..., None]
    allowed = torch.zeros(*chosen.shape[:2], rows + 1, dtype=torch.bool, device=chosen.device)
    return allowed.scatter_(2, chosen.long().where(inside, rows), True)[..., :rows]


def _flex(problem: Problem, mask: BlockMask, options: dict[str, Any]) -> Call:
    tensors = problem.tensors
    attention: Any = flex_attention
    if tensors.q.is_cuda:
        # Falling back to the uncompiled function would take tokens squared of memory.
        torch._dynamo.config.recompile_limit = 64
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        attention = torch.compile(flex_attention, dynamic=False)
    batched = [x[None] for x in (tensors.q, tensors.cache.keys, tensors.cache.values)]

    def call() -> torch.Tensor:
        found = attention(*batched, block_mask=mask, enable_gqa=True, kernel_options=options)
        assert isinstance(found, torch.Tensor)
        return found[0]

    return call


def flashinfer_plan(problem: Problem) -> Call:
    """FlashInfer's VariableBlockSparseAttentionWrapper, planned; ImportError where it is missing.

    It has one mask for all query heads of a KV group: the first head's lists are used for the
    whole group, so that its work is that of other budgets than ours, and its causal mask cuts only
    by blocks of the diagonal. The caller must compare by tiles.
    """
    flashinfer = import_module("flashinfer")
    layout, tensors = problem.layout, problem.tensors
    heads, groups = tensors.q.shape[0], tensors.cache.keys.shape[0]
    size, rows = layout.block_tokens, layout.lists // heads
    chosen = padded_lists(layout, problem.indices, layout.longest).view(heads, rows, -1)
    allowed = _dense(chosen, layout.length.view(heads, rows))[:: heads // groups]
    sizes = torch.full((groups, rows), size, dtype=torch.int32, device=tensors.q.device)
    workspace = torch.empty(512 * 2**20, dtype=torch.uint8, device=tensors.q.device)
    wrapper = flashinfer.VariableBlockSparseAttentionWrapper(workspace, backend="auto")
    wrapper.plan(
        block_mask_map=allowed,
        block_row_sz=sizes,
        block_col_sz=sizes,
        num_qo_heads=heads,
        num_kv_heads=groups,
        head_dim=tensors.q.shape[2],
        q_data_type=tensors.q.dtype,
    )
    return lambda: wrapper.run(tensors.q, tensors.cache.keys, tensors.cache.values)


def flashinfer_tiles(problem: Problem) -> int:
    """Tiles that `flashinfer_plan` computes: the first head's of every group, for all its heads."""
    heads = problem.tensors.q.shape[0]
    size = heads // problem.tensors.cache.keys.shape[0]
    return int(problem.layout.length.view(heads, -1)[::size].sum()) * size


def flashinfer_decode(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, page_tokens: int
) -> Call:
    """FlashInfer's paged decode, planned, of q [batch, heads, head_dim]; ImportError without it.

    keys and values [batch, groups, tokens, head_dim] are cut into pages in their order.
    """
    flashinfer = import_module("flashinfer")
    batch, groups, tokens, head_dim = keys.shape
    paged = [
        x.view(batch, groups, -1, page_tokens, head_dim).transpose(1, 2).flatten(0, 1).contiguous()
        for x in (keys, values)
    ]
    pages = tokens // page_tokens
    options: Any = {"dtype": torch.int32, "device": q.device}
    workspace = torch.empty(256 * 2**20, dtype=torch.uint8, device=q.device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        workspace, kv_layout="HND", use_tensor_cores=True
    )
    wrapper.plan(
        torch.arange(batch + 1, **options) * pages,
        torch.arange(batch * pages, **options),
        torch.full((batch,), page_tokens, **options),
        q.shape[1],
        groups,
        head_dim,
        page_tokens,
        q_data_type=q.dtype,
        kv_data_type=q.dtype,
    )
    return lambda: wrapper.run(q, tuple(paged))


def first_call_s(call: Callable[[], object]) -> float:
    """Seconds of a call that compiles what later ones run."""
    began = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


@contextmanager
def recorded(row: dict[str, Any], name: str) -> Iterator[None]:
    """A peer that is missing or fails leaves its reason in the row instead of ending the case."""
    try:
        yield
    except Exception as error:
        row[f"{name}_unavailable"] = f"{type(error).__name__}: {str(error)[:300]}"
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
