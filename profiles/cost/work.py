"""Work: what a head makes a device do, as counts the cost model multiplies with rates.

A device's load in a layer is `launches` + the work of its heads + the work of the KV groups
present there (docs/design.md, section 4). A head is charged for the (query, key) pairs its budget
leaves; what belongs to a (KV group, device) pair (the K/V projection or transfer, the K/V bytes) is
charged once per pair, so that a placement that scatters groups is seen to pay for it.

A block is the query rows that share one list of keys, a piece the unit of that list and of budgets.
Pairs are counted in tiles of block x piece; those on the diagonal count whole.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from profiles.architecture import Architecture
from profiles.selection import POOLED, Sampled, Selection
from profiles.sizes import causal_pieces, gathered_pieces, sizes_fault, whole_pieces

Phase = Literal["prefill", "decode"]
Deployment = Literal["disaggregated", "tensor_parallel"]
Floats = NDArray[np.float64]

FEATURES = (
    "launches",
    "query_blocks",
    "dense_tile_flops",
    "gathered_tile_flops",
    "sampled_flops",
    "scored_blocks",
    "kv_bytes",
    "projection_flops",
    "link_bytes",
    "kv_lists",
)
"""What a load is linear in; `rates` holds seconds per unit of each, in this order.

`kv_lists` counts (sequence, KV group) pairs: each starts thread blocks of its own. Without it
the error of fitted decode times is 1.4 to 1.8 times as large (benchmarks/cost_model.py).
Of a tile's pairs `gathered_tile_flops` are those with pieces chosen among others, read through
indices; `dense_tile_flops` those of lists that leave nothing out and, in a prefill, of a query
block with its own pieces. `sampled_flops` are those of rows that are scored against every key in
order to choose. A back end need not cost anything of its own by each: `profiles.cost.fitted`.
"""

INDEX = {name: position for position, name in enumerate(FEATURES)}


@dataclass(frozen=True)
class Workload:
    """One step: `batch_size` sequences of `context_tokens`, prefilled whole or decoding a token.

    `piece_tokens` divides `block_tokens` and is the same unless given (0). Raises ValueError where
    it does not divide.
    """

    context_tokens: int
    phase: Phase = "prefill"
    batch_size: int = 1
    deployment: Deployment = "disaggregated"
    block_tokens: int = 64
    piece_tokens: int = 0

    def __post_init__(self) -> None:
        if not self.piece_tokens:
            object.__setattr__(self, "piece_tokens", self.block_tokens)
        fault = sizes_fault(self.block_tokens, self.piece_tokens)
        if fault is not None:
            raise ValueError(fault)

    @property
    def context_blocks(self) -> int:
        """Query blocks of the whole context, the last one perhaps partly filled."""
        return -(-self.context_tokens // self.block_tokens)

    @property
    def context_pieces(self) -> int:
        """Key pieces of the whole context, the last one perhaps partly filled."""
        return -(-self.context_tokens // self.piece_tokens)

    @property
    def block_pieces(self) -> int:
        """Key pieces of a query block."""
        return self.block_tokens // self.piece_tokens

    @property
    def least_pieces(self) -> int:
        """The shortest list: a query block's own pieces, in decode the newest token's."""
        return min(self.block_pieces, self.context_pieces) if self.phase == "prefill" else 1

    @property
    def new_tokens(self) -> int:
        """Query rows a sequence brings to this step."""
        return self.context_tokens if self.phase == "prefill" else 1


def budget_pieces(budgets: Floats, workload: Workload) -> NDArray[np.int64]:
    """Whole key pieces of each budget (rounded up), at least `least_pieces`, at most the context's.

    >>> budget_pieces(np.array([1, 65, 1000]), Workload(200, block_tokens=64, piece_tokens=16))
    array([ 4,  5, 13])
    """
    tokens = np.minimum(np.asarray(budgets, dtype=np.float64), workload.context_tokens)
    least, most = workload.least_pieces, workload.context_pieces
    return whole_pieces(tokens, workload.piece_tokens, least, most).astype(np.int64)


def _pair_flops(selection: Selection, architecture: Architecture, workload: Workload) -> int:
    """FLOPs that choosing takes for a scored (query block, key piece) pair, beside its score.

    Those of a prefill's sampled rows with the piece's keys; a decode scores by bounds alone.
    """
    if workload.phase == "decode" or not isinstance(selection, Sampled):
        return 0
    return 2 * selection.rows * workload.piece_tokens * architecture.head_dim


def head_work(
    budgets: Floats,
    architecture: Architecture,
    workload: Workload,
    selection: Selection = POOLED,
) -> Floats:
    """Work that follows each query head, `[..., FEATURES]` for budgets `[...]` in tokens.

    `selection` says what choosing costs: nothing where keys follow from a rule. `scored_blocks`
    are (query block, key piece) candidates.
    """
    pieces, every = budget_pieces(budgets, workload), workload.context_pieces
    n, own = workload.context_blocks, workload.block_pieces
    block, piece, dim = workload.block_tokens, workload.piece_tokens, architecture.head_dim
    choosing = (pieces < every) & selection.scores
    work = np.zeros((*pieces.shape, len(FEATURES)))
    if workload.phase == "prefill":
        work[..., INDEX["query_blocks"]] = n
        tiles, gathered = causal_pieces(pieces, n, own), gathered_pieces(pieces, n, every, own)
        flops = 4 * block * piece * dim
        pairs = np.where(choosing, causal_pieces(np.array(every), n, own), 0)
        work[..., INDEX["sampled_flops"]] = pairs * _pair_flops(selection, architecture, workload)
    else:
        work[..., INDEX["query_blocks"]] = 1
        tiles, gathered, flops = pieces, pieces * (pieces < every), 4 * piece * dim
        pairs = np.where(choosing, every, 0)
    work[..., INDEX["dense_tile_flops"]] = flops * (tiles - gathered)
    work[..., INDEX["gathered_tile_flops"]] = flops * gathered
    work[..., INDEX["scored_blocks"]] = pairs
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
    tokens_read = budget_pieces(grouped.max(axis=-1), workload) * workload.piece_tokens
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


def kv_group_bytes(architecture: Architecture, workload: Workload) -> NDArray[np.int64]:
    """K/V bytes that one group of every layer holds on a device, `[layers]`: the whole context's,
    in a layer with a window those of its window."""
    per_token = 2 * architecture.head_dim * architecture.item_bytes * workload.batch_size
    return np.array(architecture.reaches(workload.context_tokens), dtype=np.int64) * per_token
