"""What executors count in a decode step: lists that heads share, and lists that are cut.

A placement is costed with each head by itself, so that loads stay linear in it. In truth the heads
of a KV group that are whole on a device read one list, as long as their largest budget, and a part
of a head reads its part of a list of its own but scores all of it. `hplb`'s executors report these
counts, and they are what measurements are held against.
"""

import numpy as np
from numpy.typing import NDArray

from profiles.architecture import Architecture
from profiles.cost.work import FEATURES, INDEX, Workload
from solver.shares import Floats, Ints


def decode_work(
    ends: Ints,
    pieces: Ints,
    present: NDArray[np.bool_],
    architecture: Architecture,
    workload: Workload,
    scored: bool,
) -> Floats:
    """Work of every device's shard of a layer without its launch, `[devices, FEATURES]`.

    ends [heads, devices]: the (sequence, key piece) unit at which a device's part of a head ends,
    `solver.rows.boundaries`; pieces [heads]: key pieces of a head's budget; present
    [kv_heads, devices]: whether a device holds a group; `scored`: whether heads score pieces.
    """
    read = _pieces_read(ends, pieces, workload.batch_size)
    grouped = (architecture.kv_heads, -1, *read.shape[1:])
    own = pieces.reshape(architecture.kv_heads, -1, 1, 1)
    parts = read.reshape(grouped)
    whole = parts == own
    packed = np.where(whole, own, 0).max(axis=1)
    cut = np.where(whole, 0, parts)
    tiles = whole.sum(axis=1) * packed + cut.sum(axis=1)
    decoded = packed + cut.sum(axis=1)
    every = workload.context_pieces
    gathered = whole.sum(axis=1) * packed * (packed < every) + (cut * (own < every)).sum(axis=1)
    choosing = whole.sum(axis=1) * (packed < every) + ((cut > 0) & (own < every)).sum(axis=1)

    work = np.zeros((ends.shape[1], len(FEATURES)))
    rows, lists = (parts > 0).sum(axis=(0, 1, 3)), present.sum(axis=0) * workload.batch_size
    dim, width, item = architecture.head_dim, architecture.hidden_size, architecture.item_bytes
    held = decoded.sum(axis=(0, 2)) * workload.piece_tokens
    work[:, INDEX["query_blocks"]] = rows
    kinds = {"dense_tile_flops": tiles - gathered, "gathered_tile_flops": gathered}
    for name, counted in kinds.items():
        work[:, INDEX[name]] = 4 * workload.piece_tokens * dim * counted.sum(axis=(0, 2))
    work[:, INDEX["scored_blocks"]] = scored * every * choosing.sum(axis=(0, 2))
    work[:, INDEX["kv_bytes"]] = 2 * (rows + held) * dim * item
    work[:, INDEX["kv_lists"]] = lists
    if workload.deployment == "tensor_parallel":
        work[:, INDEX["projection_flops"]] = 2 * 2 * (rows + lists) * width * dim
    else:
        work[:, INDEX["link_bytes"]] = 2 * lists * dim * item
    return work


def _pieces_read(ends: Ints, pieces: Ints, sequences: int) -> Ints:
    """Key pieces of a head's list that a device reads for a sequence, [heads, devices, sequences].

    A head's units are its list's pieces, sequence after sequence.
    """
    begins = np.concatenate([np.zeros_like(ends[:, :1]), ends[:, :-1]], axis=1)
    length = pieces[:, None, None]
    before = np.arange(sequences) * length
    last = np.clip(ends[..., None] - before, 0, length)
    return np.asarray(last - np.clip(begins[..., None] - before, 0, length))
