"""The device's part of prefill: one query block, a loop over its list of key blocks.

FlashAttention-2 (arXiv 2307.08691), K and V by pointers or by tensor descriptors (TMA).
"""

# Triton compiles the functions below from their source; it has no types for mypy to check.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import triton
import triton.language as tl

from executor.kernels.prefill_tiles import computed_rows, own_block, place_of, tile_of
from executor.kernels.softmax import absorb, finish


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
