"""A budget for every head: a plan carried out on a model."""

from collections.abc import Iterable
from typing import Any, Self

from executor.attention.shares import whole
from executor.errors import AttentionError
from executor.inference.block_attention import BlockAttention
from executor.inference.policy import Attended, LayerCall
from profiles.selection import SAMPLED, Selection
from solver.plans import Plan


class BudgetPolicy:
    """Every head attends to the blocks it chooses within its budget, in prefill and in decode.

    tokens [layers, query_heads]: whole numbers, at least 1; rounded up to pieces of
    `piece_tokens` keys (a query block of `block_tokens` rows is one, unless said otherwise).
    A budget that covers the sequence is dense attention, and unless `as_chosen` so is one of a
    prompt whose lists hold nearly all of its tiles, where that takes no longer
    (`attention.backends.DENSE_FROM`). `selection` says how blocks are chosen,
    by sampled rows unless given, as heads are measured; `backend` is auto, torch or triton; with
    `watched_rows` the recovery of so many rows of every head, as chosen, is measured at every call.
    Windowed
    layers are dense within their window wherever it hides a key. Several models and threads may
    share a policy. Raises AttentionError, or UnknownNameError for a back end nobody has heard of.
    """

    def __init__(
        self,
        tokens: Any,
        *,
        selection: Selection = SAMPLED,
        block_tokens: int = 64,
        piece_tokens: int | None = None,
        backend: str = "auto",
        watched_rows: int = 0,
        as_chosen: bool = False,
    ) -> None:
        self.tokens = _checked(tokens)
        # Of every layer a prompt's step and a decode's.
        kept_steps = 2 * len(self.tokens)
        piece = block_tokens if piece_tokens is None else piece_tokens
        self._blocks = BlockAttention(
            selection,
            block_tokens,
            piece,
            backend,
            watched_rows,
            kept_steps,
            as_chosen=as_chosen,
        )

    @classmethod
    def of_plan(cls, plan: Plan, *, backend: str = "auto", watched_rows: int = 0) -> Self:
        """A plan's budgets, selection and sizes, whatever devices it places them on.

        Budgets are tokens: a head that is dense at the plan's context is not beyond it. Which heads
        are, the plan decided by its rates.
        """
        return cls(
            plan.budgets,
            selection=plan.selection,
            block_tokens=plan.workload.block_tokens,
            piece_tokens=plan.workload.piece_tokens,
            backend=backend,
            watched_rows=watched_rows,
            as_chosen=True,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and query heads of the models it is for."""
        return len(self.tokens), len(self.tokens[0])

    def attend(self, call: LayerCall) -> Attended:
        """Attention of one layer's call, within the layer's budgets."""
        layers, heads = self.shape
        if call.layer >= layers or call.q.shape[0] != heads:
            raise AttentionError(
                f"tokens: budgets of {layers} layers and {heads} query heads; the call is layer "
                f"{call.layer} with {call.q.shape[0]}"
            )
        return self._blocks.attend(call, self.tokens[call.layer])


def _checked(tokens: Any) -> tuple[tuple[int, ...], ...]:
    """tokens [layers, heads] of any kind of sequence, array or tensor."""
    tokens = tokens.tolist() if hasattr(tokens, "tolist") else tokens
    if not isinstance(tokens, Iterable) or not all(isinstance(row, Iterable) for row in tokens):
        raise AttentionError("tokens: must be [layers, query_heads] of whole numbers")
    rows = [list(row) for row in tokens]
    if not rows or not rows[0]:
        raise AttentionError("tokens: there must be a layer and a query head")
    for layer, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise AttentionError(
                f"tokens[{layer}]: {len(row)} query heads, but {len(rows[0])} in layer 0"
            )
        for head, value in enumerate(row):
            if not whole(value) or value < 1:
                raise AttentionError(
                    f"tokens[{layer}][{head}]: {value!r} must be a whole number, at least 1"
                )
    return tuple(tuple(int(value) for value in row) for row in rows)
