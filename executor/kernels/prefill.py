"""Block-sparse causal prefill attention: FlashAttention-2 (arXiv 2307.08691) over lists of blocks.

One program computes one query block of one head, and the programs start longest list first. With a
share of the multiprocessors (Nexus, arXiv 2507.06608) so many programs take the lists off a queue,
in the same order. Lists that the layout cuts are merged afterwards (Flash-Decoding, 2023).
"""

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from executor.kernels.batch import Cache
from executor.kernels.chip import H100, RESERVED_BYTES, Chip, chip_of
from executor.kernels.layout import Layout
from executor.kernels.merge import merge
from executor.kernels.prefill_kernel import prefill_kernel
from executor.kernels.softmax import LOG2_E


def prefill(
    q: torch.Tensor,
    cache: Cache,
    layout: Layout,
    indices: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    sms: int | None = None,
    tma: bool | None = None,
) -> None:
    """Attention of q [heads, new tokens, head_dim] to `cache` over the lists of `layout`.

    Writes out (like q) and lse fp32 [heads, new tokens], the natural log-sum-exp of the scaled
    scores, in the rows that `layout` lists, and leaves the others as they are. head_dim and block
    are powers of two, at least 16. `sms`: run as that many programs. `tma`: load K and V by tensor
    descriptors, which takes fewer registers than pointers do; by default wherever the chip has them
    and strides allow.
    """
    if not layout.lists:
        return
    chip = chip_of(q.device)
    if tma is None:
        tma = chip.tma and describable(cache.keys) and describable(cache.values)
    paged = cache.pages is not None
    options = launch_options(layout.block_tokens, q.shape[2], q.element_size(), tma, paged, chip)
    slots, pieces = layout.splits, layout.pieces
    partial_out = q.new_empty(slots, layout.block_tokens, q.shape[2], dtype=torch.float32)
    partial_lse = q.new_empty(slots, layout.block_tokens, dtype=torch.float32)
    tasks = layout.lists if pieces is None else pieces.table.shape[0]
    place = cache.starts if cache.pages is None else cache.pages
    assert place is not None
    prefill_kernel[(tasks if sms is None else min(sms, tasks),)](
        q,
        *(_described(x, options["KEYS"]) if tma else x for x in (cache.keys, cache.values)),
        out,
        lse,
        partial_out,
        partial_lse,
        place,
        layout.entries,
        layout.entry,
        layout.row,
        layout.length,
        layout.start,
        indices,
        layout.order if pieces is None else pieces.table,
        torch.zeros(int(sms is not None), dtype=torch.int32, device=q.device),
        *q.stride(),
        *_strides(cache.keys),
        *_strides(cache.values),
        *out.stride(),
        *lse.stride(),
        place.stride(0),
        place.stride(-1),
        tasks,
        1,
        q.shape[2] ** -0.5 * LOG2_E,
        PAGED=paged,
        TMA=tma,
        QUEUE=sms is not None,
        SPLIT=pieces is not None,
        **options,
    )
    if pieces is not None:
        merge(partial_out, partial_lse, pieces.slots, pieces.heads, pieces.tokens, out, lse)


def describable(x: torch.Tensor) -> bool:
    """Whether a tensor descriptor can describe keys or values: steps of 16 bytes, rows without."""
    item = x.element_size()
    steps = all(stride > 0 and stride * item % 16 == 0 for stride in x.stride()[:-1])
    return steps and x.stride(-1) == 1 and x.data_ptr() % 16 == 0 and x.numel() > 0


def _described(x: torch.Tensor, keys: int) -> TensorDescriptor:
    return TensorDescriptor.from_tensor(x, [1] * (x.dim() - 2) + [keys, x.shape[-1]])


def _strides(x: torch.Tensor) -> tuple[int, ...]:
    """Strides of page, group, token and dim; a contiguous cache has no pages."""
    return x.stride() if x.dim() == 4 else (0, *x.stride())


def launch_options(
    block_tokens: int,
    head_dim: int,
    item_bytes: int,
    tma: bool = True,
    paged: bool = True,
    chip: Chip = H100,
) -> dict[str, int]:
    """Tile shape, order, warps and pipeline depth that neither spill nor exceed shared memory."""
    wide = head_dim > 128
    # Two programs on a multiprocessor at head_dim 64; few rows where their pointers take registers.
    most = 64 if head_dim <= 64 else 2048 // block_tokens if wide and not tma else block_tokens
    keys = min(block_tokens, most)
    room = chip.program_bytes - RESERVED_BYTES
    while keys > 16 and held_bytes(block_tokens, keys, head_dim, item_bytes) > room:
        keys //= 2
    return {
        "BLOCK": block_tokens,
        "KEYS": keys,
        "DIM": head_dim,
        "OWN_FIRST": wide,
        "num_warps": 8 if (wide and not tma) or block_tokens > 64 else 4,
        # Index and page are each loaded a step before the next needs them, K and V two.
        "num_stages": 4 if wide else 7 if paged else 5,
    }


def held_bytes(block_tokens: int, keys: int, head_dim: int, item_bytes: int) -> int:
    """Shared memory of a program: the queries and three tiles of K and of V under way; where
    registers are short two, and the own block's."""
    return (block_tokens + 6 * keys) * head_dim * item_bytes


def programs_at_once(
    device: torch.device, block_tokens: int, head_dim: int, item_bytes: int
) -> int:
    """Lists that a device computes at once: what its multiprocessors hold together."""
    chip = chip_of(device)
    options = launch_options(block_tokens, head_dim, item_bytes, tma=chip.tma, chip=chip)
    held = held_bytes(block_tokens, options["KEYS"], head_dim, item_bytes)
    return chip.multiprocessors * chip.programs(held, options["num_warps"])
