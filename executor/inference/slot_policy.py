"""A rank of an engine attends by the map of its plan."""

from collections.abc import Sequence
from functools import lru_cache

from executor.attention.query_rows import decodes
from executor.attention.select import pattern
from executor.attention.shares import HeadShare, LayerShares
from executor.errors import AttentionError
from executor.inference.block_attention import BlockAttention
from executor.inference.policy import Attended, LayerCall
from executor.weights.execution_map import HeadMap
from profiles.selection import of_layer


class SlotPolicy:
    """The heads in the slots of some ranks, each head's own rows within its budget.

    A rank of tensor parallelism has its own slots, a process that loaded a whole checkpoint with a
    plan in it has those of all ranks. Rows of a head that other ranks compute, and of empty slots,
    are 0, so that the output projections of all ranks add up to the model's. A prompt's rows are
    cut by work within every chunk; of a head that several ranks hold each decodes whole sequences
    of a batch. `backend` is auto, torch or triton.
    """

    def __init__(self, made: HeadMap, ranks: Sequence[int], *, backend: str = "auto") -> None:
        self._map, self._ranks = made, tuple(ranks)
        # Of every layer a prompt's step, and a decode's for each way to divide its heads.
        kept_steps = 8 * made.architecture.layers
        self._blocks = BlockAttention(
            made.selection,
            made.block_tokens,
            made.piece_tokens,
            backend,
            0,
            kept_steps,
            # The plan decided by its rates which heads are dense.
            as_chosen=True,
        )
        layers = range(made.architecture.layers)
        self._slots = [len(made.layout.query_slots(layer, self._ranks)) for layer in layers]
        self._shares = slot_shares(made, ranks)
        self._decoded = lru_cache(kept_steps)(self._decoded_shares)

    def attend(self, call: LayerCall) -> Attended:
        """Attention of one layer's call, in its slots."""
        if call.layer >= len(self._shares):
            raise AttentionError(
                f"slots: of {len(self._shares)} layers; the call's is {call.layer}"
            )
        if call.q.shape[0] != self._slots[call.layer]:
            raise AttentionError(
                f"slots: layer {call.layer} has {self._slots[call.layer]} query slots here; the "
                f"call has {call.q.shape[0]} heads"
            )
        if not call.decodes:
            return self._blocks.attend_shares(call, self._shares[call.layer])
        lengths = call.lengths or (call.keys.shape[1],)
        mine = tuple(
            share.rows == (0.0, 1.0)
            or decodes(share.rows, [min(share.budget_tokens, n) for n in lengths], call.sequence)
            for share in self._shares[call.layer]
        )
        return self._blocks.attend_shares(call, self._decoded(call.layer, mine))

    def _decoded_shares(self, layer: int, mine: tuple[bool, ...]) -> LayerShares:
        """The heads of which a sequence is decoded here: whole."""
        shares = zip(self._shares[layer], mine, strict=True)
        return LayerShares(
            HeadShare(share.head, share.group, share.budget_tokens, pattern=share.pattern)
            for share, here in shares
            if here
        )


def slot_shares(made: HeadMap, ranks: Sequence[int]) -> tuple[LayerShares, ...]:
    """Shares of the heads that some ranks have rows of, `[layers]`, numbered by their slots."""
    return tuple(_of_layer(made, ranks, layer) for layer in range(made.architecture.layers))


def _of_layer(made: HeadMap, ranks: Sequence[int], layer: int) -> LayerShares:
    selection = of_layer(made.selection, made.architecture, layer)
    patterns = [
        pattern(selection, made.architecture, group, made.piece_tokens)
        for group in range(made.architecture.kv_heads)
    ]
    return LayerShares(
        HeadShare(
            index,
            number,
            made.budgets[layer][head],
            rows,
            pattern=patterns[made.architecture.kv_head(head)],
        )
        for index, (number, head, rows) in enumerate(made.layout.query_slots(layer, ranks))
        if head is not None and rows is not None
    )
