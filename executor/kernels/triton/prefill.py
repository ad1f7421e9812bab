"""Block-sparse causal prefill attention: FlashAttention-2 (arXiv 2307.08691) over lists of blocks.

One program computes one query block of one head, and the programs start longest list first. With a
share of the multiprocessors (Nexus, arXiv 2507.06608) so many programs take the lists off a queue,
in the same order. Lists that the layout cuts are merged afterwards (Flash-Decoding, 2023).
"""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from executor.kernels.batch import Cache
from executor.kernels.chip import H100, RESERVED_BYTES, Chip, chip_of
from executor.kernels.layout import Layout
from executor.kernels.triton.merge import merge
from executor.kernels.triton.softmax import LOG2_E, absorb, begin, finish


def prefill_attention(
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
        layout.query_block,
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


@triton.jit(do_not_specialize=["lse_head", "place_sequence", "tasks", "once"])
def prefill_kernel(
    q_ptr,
    keys,
    values,
    out_ptr,
    lse_ptr,
    partial_out_ptr,
    partial_lse_ptr,
    place_ptr,
    entries_ptr,
    entry_ptr,
    row_ptr,
    length_ptr,
    start_ptr,
    indices_ptr,
    tasks_ptr,
    queue_ptr,
    q_head,
    q_token,
    q_dim,
    keys_page,
    keys_group,
    keys_token,
    keys_dim,
    values_page,
    values_group,
    values_token,
    values_dim,
    out_head,
    out_token,
    out_dim,
    lse_head,
    lse_token,
    place_sequence,
    place_block,
    tasks,
    once,
    scale_log2,
    BLOCK: tl.constexpr,
    KEYS: tl.constexpr,
    DIM: tl.constexpr,
    PAGED: tl.constexpr,
    TMA: tl.constexpr,
    QUEUE: tl.constexpr,
    SPLIT: tl.constexpr,
    OWN_FIRST: tl.constexpr,
):
    """Output and log-sum-exp of task after task; a key block is read in parts of KEYS tokens.

    OWN_FIRST: the masked block before the others, while its registers are free, at the price of
    holding its keys and values in shared memory until the end.
    """
    dims = tl.arange(0, DIM)
    queries = tl.arange(0, BLOCK)
    within = tl.arange(0, KEYS)
    # Offsets, not pointers: half the registers.
    keys_within = within[:, None] * keys_token + dims[None, :] * keys_dim
    values_within = within[:, None] * values_token + dims[None, :] * values_dim
    taken = tl.atomic_add(queue_ptr, 1) if QUEUE else tl.program_id(0)
    while taken < tasks:
        # One round, though the compiler must not know: what it would hoist into the queue's loop
        # would spill.
        for task in tl.range(taken, taken + once, disable_licm=True):
            if SPLIT:
                number = tl.load(tasks_ptr + 4 * task)
                first = tl.load(tasks_ptr + 4 * task + 1)
                count = tl.load(tasks_ptr + 4 * task + 2)
                slot = tl.load(tasks_ptr + 4 * task + 3)
            else:
                number = tl.load(tasks_ptr + task)
                first = 0
                count = tl.load(length_ptr + number)
                slot = -1
            row = tl.load(row_ptr + number)
            start = tl.load(start_ptr + number)
            entry_at = entries_ptr + 6 * tl.load(entry_ptr + number)
            group = tl.load(entry_at + 1)
            sequence = tl.load(entry_at + 2)
            total_tokens = tl.load(entry_at + 5)
            token = row * BLOCK + queries
            head, at, stored = computed_rows(entry_at, token, False)
            q_at = q_ptr + head * q_head + at[:, None] * q_token + dims[None, :] * q_dim
            q = tl.load(q_at, mask=stored[:, None], other=0.0)
            group_at = group.to(tl.int64)
            k_at = (
                keys if TMA else keys + group_at * keys_group,
                keys_within,
                keys_page,
                keys_token,
            )
            v_at = (
                values if TMA else values + group_at * values_group,
                values_within,
                values_page,
                values_token,
            )
            place_at = place_ptr + sequence.to(tl.int64) * place_sequence
            base = 0 if PAGED else tl.load(place_at)

            largest = tl.full([BLOCK], float("-inf"), tl.float32)
            total = tl.zeros([BLOCK], tl.float32)
            result = tl.zeros([BLOCK, DIM], tl.float32)
            if OWN_FIRST:
                result, total, largest = own_block(
                    q,
                    k_at,
                    v_at,
                    group,
                    place_at,
                    place_block,
                    base,
                    indices_ptr,
                    start,
                    first + count - 1,
                    count > 0,
                    row,
                    token,
                    total_tokens,
                    scale_log2,
                    result,
                    total,
                    largest,
                    BLOCK,
                    KEYS,
                    PAGED,
                    TMA,
                    OWN_FIRST,
                )

            # The others lie before the query block and need no mask.
            for step in range(0, (count - 1) * (BLOCK // KEYS)):
                position = first + step // (BLOCK // KEYS)
                part = step % (BLOCK // KEYS) * KEYS
                block = tl.load(indices_ptr + start + position, mask=start >= 0, other=position)
                place = place_of(place_at, place_block, base, block, BLOCK, PAGED)
                k = tile_of(k_at, group, place, part, None, PAGED, TMA)
                v = tile_of(v_at, group, place, part, None, PAGED, TMA)
                scores = tl.dot(q, k.T, input_precision="tf32x3")
                result, total, largest = absorb(
                    scores, v, scale_log2, result, total, largest, False
                )
            if not OWN_FIRST:
                result, total, largest = own_block(
                    q,
                    k_at,
                    v_at,
                    group,
                    place_at,
                    place_block,
                    base,
                    indices_ptr,
                    start,
                    first + count - 1,
                    count > 0,
                    row,
                    token,
                    total_tokens,
                    scale_log2,
                    result,
                    total,
                    largest,
                    BLOCK,
                    KEYS,
                    PAGED,
                    TMA,
                    OWN_FIRST,
                )
            result, lse = finish(result, total, largest)

            # Read again, for in between all registers are needed.
            first_token = tl.load(row_ptr + number, volatile=True) * BLOCK
            token = first_token + queries
            head, at, stored = computed_rows(entry_at, token, True)
            if SPLIT and slot >= 0:
                at = slot.to(tl.int64) * BLOCK + token - first_token
                tl.store(partial_out_ptr + at[:, None] * DIM + dims[None, :], result)
                tl.store(partial_lse_ptr + at, lse)
            else:
                out_at = (
                    out_ptr + head * out_head + at[:, None] * out_token + dims[None, :] * out_dim
                )
                tl.store(out_at, result.to(out_ptr.dtype.element_ty), mask=stored[:, None])
                lse_at = lse_ptr + head * lse_head + at * lse_token
                tl.store(lse_at, lse * 0.6931471805599453, mask=stored)
        taken = tl.atomic_add(queue_ptr, 1) if QUEUE else tasks


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
