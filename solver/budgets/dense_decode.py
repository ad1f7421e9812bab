"""Decodes that attend to everything, where choosing would take longer than it saves.

A decoding list is short work: at small batches and contexts, scoring the bounds of every piece and
picking costs a good part of the bytes that the list leaves out (FlexPrefill, Block-Sparse-Attention
and TensorRT-LLM users report sparse attention that is slower than dense). By the rates in force
that is known before anything runs.
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
from solver.problem import Floats, Ints


def dense_where_cheaper(
    budgets: Budgets,
    architecture: Architecture,
    workload: Workload,
    selection: Selection,
    rates: Mapping[str, Rates],
    types: Sequence[str],
) -> Budgets:
    """`budgets` of a decode with the context for the heads of KV groups where dense is no slower.

    On every device type of `types`, that is: a list is the same wherever its group is placed. A
    prefill, a layer with a window, and a selection that follows a rule and scores nothing, stay as
    they are.
    """
    if workload.phase != "decode" or not selection.scores:
        return budgets
    tokens, context = budgets.tokens, np.full_like(budgets.tokens, workload.context_tokens)
    sparse, dense = (
        _group_seconds(each, architecture, workload, selection, rates, types)
        for each in (tokens, context)
    )
    chooses = (tokens < context).reshape(*sparse.shape[:2], -1).any(axis=-1)
    chosen = chooses & (dense <= sparse).all(axis=-1)
    reach = [architecture.reach(layer, workload.context_tokens) for layer in range(len(tokens))]
    chosen &= np.array(reach)[:, None] == workload.context_tokens
    if not chosen.any():
        return budgets
    heads: NDArray[np.bool_] = np.repeat(chosen, architecture.group_size, axis=1)
    note = (
        f"decode at {workload.context_tokens} tokens, batch {workload.batch_size}: {chosen.sum()} "
        f"of {chosen.size} KV groups attend to everything, for choosing pieces would take as long "
        "as it saves"
    )
    recovery = budgets.recovery
    return replace(
        budgets,
        tokens=np.where(heads, context, tokens),
        recovery=None if recovery is None else np.where(heads, 1.0, recovery),
        warnings=(*budgets.warnings, note),
    )


def _group_seconds(
    tokens: Ints,
    architecture: Architecture,
    workload: Workload,
    selection: Selection,
    rates: Mapping[str, Rates],
    types: Sequence[str],
) -> Floats:
    """Seconds of every KV group with its heads in one place, `[layers, kv_heads, types]`."""
    wanted = tokens.astype(np.float64)
    groups = (len(tokens), architecture.kv_heads, architecture.group_size, -1)
    work = head_work(wanted, architecture, workload, selection).reshape(groups).sum(axis=2)
    work = work + group_work(wanted, architecture, workload)
    return np.stack([rates[name].seconds(work) for name in dict.fromkeys(types)], axis=-1)
