"""Work: what a head makes a device do, as counts the cost model multiplies with rates.

A device's load in a layer is `launches` + the work of its heads + the work of the KV groups
present there (DESIGN section 8). A head is charged for the tiles its budget leaves; what belongs
to a (KV group, device) pair (the K/V projection or transfer, the K/V bytes) is charged once per
pair, so that a placement that scatters groups is seen to pay for it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from profiles.architecture import Architecture
from profiles.selection import POOLED, Sampled, Selection

Phase = Literal["prefill", "decode"]
Deployment = Literal["disaggregated", "tensor_parallel"]
Floats = NDArray[np.float64]

FEATURES = (
    "launches",
    "query_blocks",
    "tile_flops",
    "scored_blocks",
    "kv_bytes",
    "projection_flops",
    "link_bytes",
    "kv_lists",
    "sparse_tile_flops",
)
"""What a load is linear in; `rates` holds seconds per unit of each, in this order.

`kv_lists` counts (sequence, KV group) pairs: each starts thread blocks of its own. Without it
the error of fitted decode times is 1.4 to 1.8 times as large (benchmarks/cost_model.py).
`sparse_tile_flops` counts those of a prefill's `tile_flops` again that heads with a budget below
the context attend by: its rate is what gathered keys cost beyond dense ones.
"""

INDEX = {name: position for position, name in enumerate(FEATURES)}


@dataclass(frozen=True)
class Workload:
    """One step: `batch_size` sequences of `context_tokens`, prefilled whole or decoding a token."""

    context_tokens: int
    phase: Phase = "prefill"
    batch_size: int = 1
    deployment: Deployment = "disaggregated"
    block_tokens: int = 64

    @property
    def context_blocks(self) -> int:
        """Key blocks of the whole context, the last one perhaps partly filled."""
        return -(-self.context_tokens // self.block_tokens)

    @property
    def new_tokens(self) -> int:
        """Query rows a sequence brings to this step."""
        return self.context_tokens if self.phase == "prefill" else 1


def budget_blocks(budgets: Floats, workload: Workload) -> NDArray[np.int64]:
    """Whole key blocks of each budget (rounded up), at least one, at most the context."""
    blocks = np.ceil(np.asarray(budgets, dtype=np.float64) / workload.block_tokens)
    return np.clip(blocks, 1, workload.context_blocks).astype(np.int64)


def causal_tiles(blocks: NDArray[np.int64], context_blocks: int) -> NDArray[np.int64]:
    """Sum over query rows i of min(blocks, i + 1): the tiles of a causal prefill."""
    return blocks * (blocks + 1) // 2 + (context_blocks - blocks) * blocks


def pair_flops(selection: Selection, architecture: Architecture, workload: Workload) -> int:
    """FLOPs that choosing takes for a scored (query block, key block) pair, beside its score.

    Those of a prefill's sampled rows with the block's keys; a decode scores by bounds alone.
    """
    if workload.phase == "decode" or not isinstance(selection, Sampled):
        return 0
    return 2 * selection.rows * workload.block_tokens * architecture.head_dim


def head_work(
    budgets: Floats,
    architecture: Architecture,
    workload: Workload,
    selection: Selection = POOLED,
) -> Floats:
    """Work that follows each query head, `[..., FEATURES]` for budgets `[...]` in tokens.

    `selection` says what choosing costs: nothing where blocks follow from a rule.
    """
    blocks = budget_blocks(budgets, workload)
    n, size, dim = workload.context_blocks, workload.block_tokens, architecture.head_dim
    choosing = (blocks < n) & selection.scores
    work = np.zeros((*blocks.shape, len(FEATURES)))
    if workload.phase == "prefill":
        work[..., INDEX["query_blocks"]] = n
        work[..., INDEX["tile_flops"]] = 4 * size * size * dim * causal_tiles(blocks, n)
        work[..., INDEX["sparse_tile_flops"]] = work[..., INDEX["tile_flops"]] * (blocks < n)
        pairs = np.where(choosing, n * (n + 1) // 2, 0)
        work[..., INDEX["scored_blocks"]] = pairs
        work[..., INDEX["tile_flops"]] += pairs * pair_flops(selection, architecture, workload)
    else:
        work[..., INDEX["query_blocks"]] = 1
        work[..., INDEX["tile_flops"]] = 4 * size * dim * blocks
        work[..., INDEX["scored_blocks"]] = np.where(choosing, n, 0)
    rows = workload.new_tokens
    work[..., INDEX["kv_bytes"]] = 2 * rows * dim * architecture.item_bytes
    if workload.deployment == "tensor_parallel":
        work[..., INDEX["projection_flops"]] = 2 * 2 * rows * architecture.hidden_size * dim
    return work * workload.batch_size


def group_work(budgets: Floats, architecture: Architecture, workload: Workload) -> Floats:
    """Work of one KV group's presence on one device, `[layers, kv_heads, FEATURES]`.

    `budgets` is `[layers, query_heads]`. In decode the group's one list is as long as its
    largest budget; that whole list is charged wherever the group is present, an upper bound
    where its hungriest head sits elsewhere (the load stays linear in the placement).
    """
    layers, heads = np.shape(budgets)
    dim, item = architecture.head_dim, architecture.item_bytes
    grouped = np.reshape(budgets, (layers, architecture.kv_heads, heads // architecture.kv_heads))
    tokens_read = budget_blocks(grouped.max(axis=-1), workload) * workload.block_tokens
    work = np.zeros((layers, architecture.kv_heads, len(FEATURES)))
    work[..., INDEX["kv_lists"]] = 1
    if workload.phase == "prefill":
        work[..., INDEX["kv_bytes"]] = 2 * workload.context_tokens * dim * item
    else:
        work[..., INDEX["kv_bytes"]] = 2 * tokens_read * dim * item
    rows = workload.new_tokens
    if workload.deployment == "tensor_parallel":
        work[..., INDEX["projection_flops"]] = 2 * 2 * rows * architecture.hidden_size * dim
    else:
        work[..., INDEX["link_bytes"]] = 2 * rows * dim * item
    return work * workload.batch_size


def kv_group_bytes(architecture: Architecture, workload: Workload) -> int:
    """K/V bytes one group of one layer holds on a device for the whole context."""
    per_token = 2 * architecture.head_dim * architecture.item_bytes
    return per_token * workload.context_tokens * workload.batch_size
