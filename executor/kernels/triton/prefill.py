"""Block-sparse causal prefill attention: FlashAttention-2 (arXiv 2307.08691) over lists of pieces.

One program computes the query blocks of a task, one head's or two heads' of a group that share a
list, and the tasks start longest first. A step reads KEYS keys: a part of one piece by a tensor
descriptor (TMA), or as many pieces as that takes, gathered row by row. One loop runs over a list,
the query block's own pieces included, so that their loads are under way before their turn. With a
share of the multiprocessors (Nexus, arXiv 2507.06608) so many programs take the tasks off a queue,
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
from executor.kernels.triton.arguments import Pool, lists_of, partial_of, pool_of, rows_of, table_of
from executor.kernels.triton.merge import merge
from executor.kernels.triton.softmax import LOG2_E, absorb, finish

LEAST_KEYS = 16
"""Keys of a step, at least: a tensor core's."""
LEAST_BOX = 64
"""Keys that a descriptor reads at once, at least: a shorter piece is gathered with others."""


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
    scores, in the rows that `layout` lists, and leaves the others as they are. head_dim, block and
    piece are powers of two, at least 16. `sms`: run as that many programs. `tma`: load K and V by
    tensor descriptors, which takes fewer registers than pointers do; by default wherever the chip
    has them, strides allow and pieces are long enough.
    """
    if not layout.lists:
        return
    paged, parts = cache.pages is not None, layout.parts
    if tma is None:
        tma = chip_of(q.device).tma and long_enough(layout.block_tokens, layout.piece_tokens)
        tma = tma and describable(cache.keys) and describable(cache.values)
    partial = partial_of(layout.splits, layout.block_tokens, q)
    table = table_of(cache)
    # One launch after the other: heads that share a list, two to a program where it has room for
    # their queries, then the others.
    two = 2 * layout.block_tokens
    together = fits(two, q.shape[2], q.element_size(), chip_of(q.device), tma)
    pairs = (2, layout.pairs) if together else (1, layout.pairs.flatten())
    for pack, tasks in (pairs, (1, layout.order if parts is None else parts.table)):
        if not len(tasks):
            continue
        options = launch_options(
            layout.block_tokens,
            layout.piece_tokens,
            q.shape[2],
            q.element_size(),
            tma,
            paged,
            pack,
            chip_of(q.device),
        )
        prefill_kernel[(len(tasks) if sms is None else min(sms, len(tasks)),)](
            rows_of(q),
            _pool(cache.keys, tma, options["KEYS"]),
            _pool(cache.values, tma, options["KEYS"]),
            rows_of(out),
            lse,
            *lse.stride(),
            lists_of(layout, indices),
            table,
            *table.stride(),
            partial,
            tasks,
            torch.zeros(int(sms is not None), dtype=torch.int32, device=q.device),
            len(tasks),
            1,
            q.shape[2] ** -0.5 * LOG2_E,
            PAGE=cache.page_tokens,
            TMA=tma,
            ALIKE=cache.keys.stride() == cache.values.stride(),
            QUEUE=sms is not None,
            SPLIT=parts is not None,
            **options,
        )
    if parts is not None:
        merge(*partial, parts.slots, parts.heads, parts.tokens, out, lse)


def long_enough(block_tokens: int, piece_tokens: int) -> bool:
    """Whether pieces are read by descriptors: a shorter one is gathered with others."""
    return piece_tokens >= min(block_tokens, LEAST_BOX)


def describable(x: torch.Tensor) -> bool:
    """Whether a tensor descriptor can describe keys or values: steps of 16 bytes, rows without."""
    item = x.element_size()
    steps = all(stride > 0 and stride * item % 16 == 0 for stride in x.stride()[:-1])
    return steps and x.stride(-1) == 1 and x.data_ptr() % 16 == 0 and x.numel() > 0


def _pool(x: torch.Tensor, tma: bool, keys: int) -> Pool:
    if not tma:
        return pool_of(x)
    box = [1] * (x.dim() - 2) + [keys, x.shape[-1]]
    return pool_of(x, TensorDescriptor.from_tensor(x, box))


def launch_options(
    block_tokens: int,
    piece_tokens: int,
    head_dim: int,
    item_bytes: int,
    tma: bool = True,
    paged: bool = True,
    pack: int = 1,
    chip: Chip = H100,
) -> dict[str, int]:
    """Tile shape, warps and pipeline depth that neither spill nor exceed shared memory.

    `pack`: heads whose query blocks one program computes together.
    """
    wide, rows = head_dim > 128, pack * block_tokens
    # Two programs on a multiprocessor at head_dim 64; few keys where their pointers take registers.
    keys = min(block_tokens, 64 if head_dim <= 64 or not tma else block_tokens)
    if tma:
        keys = min(keys, piece_tokens)
    if wide and (tma or rows > 64):
        keys = min(keys, 32)
    room = chip.program_bytes - RESERVED_BYTES
    while keys > LEAST_KEYS and held_bytes(rows, keys, head_dim, item_bytes, tma) > room:
        keys //= 2
    # Where little more is needed anyway, so that a multiprocessor holds two programs of 8 warps.
    few = {"maxnreg": 128} if head_dim <= 64 < rows and tma and item_bytes == 2 else {}
    return few | {
        "BLOCK": block_tokens,
        "PIECE": piece_tokens,
        "KEYS": keys,
        "DIM": head_dim,
        "PACK": pack,
        # Results of 64 rows at head_dim 256 take the registers of two warpgroups, but for fp32 by
        # descriptors: with what two of them keep of it shared memory does not suffice.
        "num_warps": 8 if rows > 64 or (wide and (item_bytes == 2 or not tma)) else 4,
        # Pointers: index, page, K and V each a step before the next needs them. Descriptors: K and
        # V three steps ahead, what leads to a page one more.
        "num_stages": 4 if not tma else 5 if paged else 3,
    }


def held_bytes(rows: int, keys: int, head_dim: int, item_bytes: int, tma: bool = True) -> int:
    """Shared memory of a program: its rows of queries and the tiles of K and of V under way, three
    of each by descriptors, two where their pointers take the registers.

    fp32 is three products of tf32, which keep what the queries' roundings leave of them, too.
    """
    tiles, operands = 6 if tma else 4, 2 if item_bytes > 2 else 1
    return (operands * rows + tiles * keys) * head_dim * item_bytes


def fits(rows: int, head_dim: int, item_bytes: int, chip: Chip, tma: bool) -> bool:
    """Whether a program has the shared memory for so many query rows, at its fewest keys a step."""
    held = held_bytes(rows, LEAST_KEYS, head_dim, item_bytes, tma)
    return held <= chip.program_bytes - RESERVED_BYTES


def programs_at_once(
    device: torch.device, block_tokens: int, piece_tokens: int, head_dim: int, item_bytes: int
) -> int:
    """Lists that a device computes at once: what its multiprocessors hold together."""
    chip = chip_of(device)
    tma = chip.tma and long_enough(block_tokens, piece_tokens)
    options = launch_options(block_tokens, piece_tokens, head_dim, item_bytes, tma, chip=chip)
    held = held_bytes(block_tokens, options["KEYS"], head_dim, item_bytes, tma)
    return chip.multiprocessors * chip.programs(
        held, options["num_warps"], options.get("maxnreg", 256)
    )


# What changes with a prompt's length stands outside of the groups: within them Triton compiles anew
# for every stride that is 1 or divisible by 16 or neither.
@triton.jit(
    do_not_specialize=["lse_head", "table_sequence", "table_page", "tasks", "once"],
    do_not_specialize_on_alignment=["lse_ptr", "table_ptr"],
)
def prefill_kernel(
    q,
    keys,
    values,
    out,
    lse_ptr,
    lse_head,
    lse_token,
    lists,
    table_ptr,
    table_sequence,
    table_page,
    partial,
    tasks_ptr,
    queue_ptr,
    tasks,
    once,
    scale_log2,
    BLOCK: tl.constexpr,
    PIECE: tl.constexpr,
    KEYS: tl.constexpr,
    PAGE: tl.constexpr,
    DIM: tl.constexpr,
    PACK: tl.constexpr,
    TMA: tl.constexpr,
    ALIKE: tl.constexpr,
    QUEUE: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """Output and log-sum-exp of task after task, KEYS keys a step.

    q, out: `Rows`; keys, values: `Pool`; lists: `Lists`; partial: `Partial`. lse fp32 [heads,
    tokens]. table int32: pages [sequences, pages], or starts [sequences]. tasks int32 [tasks]:
    numbers of lists, with PACK = 2 [tasks, 2] those of two heads' equal ones, with SPLIT [tasks, 4]
    as `layout.Parts.table`. queue int32 [1].
    """
    dims = tl.arange(0, DIM)
    rows = tl.arange(0, PACK * BLOCK)
    queries = rows % BLOCK
    slots = tl.arange(0, KEYS)
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
                number = tl.load(tasks_ptr + PACK * task)
                first = 0
                count = tl.load(lists.length + number)
                slot = -1
            query_block = tl.load(lists.query_block + number)
            entry_at = lists.entries + 6 * tl.load(lists.entry + number)
            group = tl.load(entry_at + 1).to(tl.int64)
            total_tokens = tl.load(entry_at + 5)
            token = query_block * BLOCK + queries
            head, at, stored = computed_rows(entry_at, token, False)
            if PACK > 1:
                other_at = lists.entries + 6 * tl.load(
                    lists.entry + tl.load(tasks_ptr + 2 * task + 1)
                )
                head = tl.where(rows < BLOCK, head, tl.load(other_at).to(tl.int64))
            q_at = q.ptr + (head * q.head + at * q.token)[:, None] + dims[None, :] * q.dim
            query = tl.load(q_at, mask=stored[:, None], other=0.0)

            # Of a list's pieces the last ones are the query block's own, and need a mask; the last
            # one of all may reach behind the sequence's end.
            own_first = query_block * (BLOCK // PIECE)
            own = tl.minimum(BLOCK // PIECE, tl.cdiv(total_tokens, PIECE) - own_first)
            length = tl.load(lists.length + number)
            before = (length - own - first) * PIECE
            behind = tl.maximum((own_first + own) * PIECE - total_tokens, 0)
            real = count * PIECE - tl.where(first + count == length, behind, 0)
            real = tl.where(count > 0, real, 0)
            # A list of all pieces has no indices: its places are the pieces.
            start = tl.load(lists.start + number)
            place = table_ptr + tl.load(entry_at + 2).to(tl.int64) * table_sequence
            base = 0 if PAGE > 0 else tl.load(place)

            largest = tl.full([PACK * BLOCK], float("-inf"), tl.float32)
            sums = tl.zeros([PACK * BLOCK], tl.float32)
            result = tl.zeros([PACK * BLOCK, DIM], tl.float32)
            if TMA:
                for step in range(0, real // KEYS):
                    place_at = first + step // (PIECE // KEYS)
                    piece = tl.load(
                        lists.indices + start + place_at, mask=start >= 0, other=place_at
                    )
                    key = piece * PIECE + step % (PIECE // KEYS) * KEYS
                    row = place_of(key, place, table_page, base, PAGE)
                    k = load_described(keys.source, row, group, PAGE, KEYS, DIM)
                    v = load_described(values.source, row, group, PAGE, KEYS, DIM)
                    scores = tl.dot(query, k.T, input_precision="tf32x3")
                    if (step + 1) * KEYS > before:
                        seen = (key + slots)[None, :] <= token[:, None]
                        scores = tl.where(seen, scores, float("-inf"))
                    result, sums, largest = absorb(scores, v, scale_log2, result, sums, largest)
                for step in tl.range(real // KEYS, tl.cdiv(real, KEYS), num_stages=1):
                    place_at = first + step // (PIECE // KEYS)
                    piece = tl.load(
                        lists.indices + start + place_at, mask=start >= 0, other=place_at
                    )
                    key = piece * PIECE + step % (PIECE // KEYS) * KEYS
                    row = place_of(key, place, table_page, base, PAGE)
                    k = load_described(keys.source, row, group, PAGE, KEYS, DIM)
                    v = load_described(values.source, row, group, PAGE, KEYS, DIM)
                    # What lies behind the end may be NaN, and 0 * NaN would reach the result.
                    v = tl.where((key + slots < total_tokens)[:, None], v, 0.0)
                    scores = tl.dot(query, k.T, input_precision="tf32x3")
                    seen = (key + slots)[None, :] <= token[:, None]
                    scores = tl.where(seen, scores, float("-inf"))
                    result, sums, largest = absorb(scores, v, scale_log2, result, sums, largest)
            else:
                keys_at = keys.source + group * keys.group
                values_at = values.source + group * values.group
                listed = tl.where(start >= 0, real, 0)
                for step in range(0, tl.cdiv(real, KEYS)):
                    slot_at = step * KEYS + slots
                    inside = slot_at < real
                    place_at = first + slot_at // PIECE
                    piece = tl.load(
                        lists.indices + start + place_at, mask=slot_at < listed, other=place_at
                    )
                    key = piece * PIECE + slot_at % PIECE
                    if PAGE > 0:
                        page = tl.load(place + key // PAGE * table_page, mask=inside, other=0)
                        k_row = page.to(tl.int64) * keys.page + key % PAGE * keys.token
                        v_row = k_row
                        if not ALIKE:
                            v_row = page.to(tl.int64) * values.page + key % PAGE * values.token
                    else:
                        k_row = (base + key).to(tl.int64) * keys.token
                        v_row = k_row
                        if not ALIKE:
                            v_row = (base + key).to(tl.int64) * values.token
                    k_at = keys_at + k_row[:, None] + dims[None, :] * keys.dim
                    k = tl.load(k_at, mask=inside[:, None], other=0.0)
                    v_at = values_at + v_row[:, None] + dims[None, :] * values.dim
                    v = tl.load(v_at, mask=inside[:, None], other=0.0)
                    scores = tl.dot(query, k.T, input_precision="tf32x3")
                    if (step + 1) * KEYS > tl.minimum(before, real):
                        seen = inside[None, :] & (key[None, :] <= token[:, None])
                        scores = tl.where(seen, scores, float("-inf"))
                    result, sums, largest = absorb(scores, v, scale_log2, result, sums, largest)
            result, natural = finish(result, sums, largest)

            # Read again, for in between all registers are needed.
            first_token = tl.load(lists.query_block + number, volatile=True) * BLOCK
            token = first_token + queries
            head, at, stored = computed_rows(entry_at, token, True)
            if PACK > 1:
                head = tl.where(rows < BLOCK, head, tl.load(other_at, volatile=True).to(tl.int64))
            if SPLIT and slot >= 0:
                at = slot.to(tl.int64) * BLOCK + token - first_token
                tl.store(partial.out + at[:, None] * DIM + dims[None, :], result)
                tl.store(partial.lse + at, natural)
            else:
                out_at = out.ptr + (head * out.head + at * out.token)[:, None]
                out_at += dims[None, :] * out.dim
                tl.store(out_at, result.to(out.ptr.dtype.element_ty), mask=stored[:, None])
                lse_at = lse_ptr + head * lse_head + at * lse_token
                tl.store(lse_at, natural * 0.6931471805599453, mask=stored)
        taken = tl.atomic_add(queue_ptr, 1) if QUEUE else tasks


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
def place_of(key, place, page_stride, base, PAGE: tl.constexpr):
    """Page and token in it of a sequence's `key`; a contiguous cache has no pages."""
    if PAGE > 0:
        return tl.load(place + key // PAGE * page_stride), key % PAGE
    else:
        return 0, base + key


@triton.jit
def load_described(source, row, group, PAGE: tl.constexpr, KEYS: tl.constexpr, DIM: tl.constexpr):
    """Keys or values [KEYS, head_dim] from `row` (page, token) on, by their descriptor."""
    if PAGE > 0:
        tile = source.load([row[0], group.to(tl.int32), row[1], 0])
    else:
        tile = source.load([group.to(tl.int32), row[1], 0])
    return tile.reshape(KEYS, DIM)
