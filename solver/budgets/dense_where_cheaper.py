"""Heads that attend to everything, where choosing would take longer than it saves.

A decoding list is short work: at small batches and contexts, scoring the bounds of every piece and
picking costs a good part of the bytes that the list leaves out. In a prefill a gathered tile costs
more than a dense one, half as much again on a CPU, so that a list that is nearly full is slower
than no list (FlexPrefill, Block-Sparse-Attention and TensorRT-LLM users report sparse attention
that is slower than dense). By the rates in force that is known before anything runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from profiles.architecture import Architecture
from profiles.cost.rates import Rates
from profiles.cost.work import Workload, group_work, head_work
from profiles.selection import Selection
from solver.budgets.allocate import Budgets
from solver.shares import Floats, Ints


def dense_where_cheaper(
    budgets: Budgets,
    architecture: Architecture,
    workload: Workload,
    selection: Selection,
    rates: Mapping[str, Rates],
    types: Sequence[str],
) -> Budgets:
    """`budgets` with the context for the heads where dense is no slower.

    Heads of a prefill choose each for itself, those of a decode's KV group together. Dense must be
    no slower on every device type of `types`: a list is the same wherever it is placed. A layer
    with a window, and a selection that follows a rule and scores nothing, stay as they are.
    """
    if not selection.scores:
        return budgets
    tokens, context = budgets.tokens, np.full_like(budgets.tokens, workload.context_tokens)
    sparse, dense = (
        _seconds(each, architecture, workload, selection, rates, types)
        for each in (tokens, context)
    )
    chooses = (tokens < context).reshape(*sparse.shape[:2], -1).any(axis=-1)
    chosen = chooses & (dense <= sparse).all(axis=-1)
    reaches = np.array(architecture.reaches(workload.context_tokens))
    chosen &= reaches[:, None] == workload.context_tokens
    if not chosen.any():
        return budgets
    heads: NDArray[np.bool_] = np.repeat(chosen, tokens.shape[1] // chosen.shape[1], axis=1)
    note = (
        f"{workload.phase} at {workload.context_tokens} tokens, batch {workload.batch_size}: "
        f"{chosen.sum()} of {chosen.size} "
        f"{'heads' if workload.phase == 'prefill' else 'KV groups'} attend to everything, for "
        "choosing pieces would take as long as it saves"
    )
    recovery = budgets.recovery
    return replace(
        budgets,
        tokens=np.where(heads, context, tokens),
        recovery=None if recovery is None else np.where(heads, 1.0, recovery),
        warnings=(*budgets.warnings, note),
    )


def _seconds(
    tokens: Ints,
    architecture: Architecture,
    workload: Workload,
    selection: Selection,
    rates: Mapping[str, Rates],
    types: Sequence[str],
) -> Floats:
    """Seconds of all that choose together, in one place: `[layers, heads, types]` of a prefill,
    `[layers, kv_heads, types]` of a decode."""
    wanted = tokens.astype(np.float64)
    work = head_work(wanted, architecture, workload, selection)
    if workload.phase == "decode":
        groups = (len(tokens), architecture.kv_heads, architecture.group_size, -1)
        work = work.reshape(groups).sum(axis=2) + group_work(wanted, architecture, workload)
    return np.stack([rates[name].seconds(work) for name in dict.fromkeys(types)], axis=-1)
