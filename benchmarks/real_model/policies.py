"""The policies that are compared, at the (query, key) pairs that uniform budgets compute.

Uniform's budget is whole blocks of 64 x 64: its pairs are the target of every other policy, whole
tiles and dense layers included. Budgets keep within them; what chooses while it runs meets them on
the documents that its p was set on, and computes more or less on others. Budgets' floor and sizes
are the same for all.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from threading import Event

import numpy as np

from benchmarks.real_model.documents import Document
from executor.evaluation.density import SEARCH_S, Fitted, Ints, Setting, fit
from executor.evaluation.methods import ONLINE
from executor.evaluation.scoring import logits_at_once
from executor.evaluation.top_p import Calibrated, TopP, Watching
from executor.inference.budget_policy import BudgetPolicy
from executor.inference.policy import Policy
from profiles.cost.work import budget_pieces
from profiles.measuring.loading import Loaded
from profiles.model import ModelProfile
from profiles.selection import Sampled, Selection, SinkLocal
from profiles.sizes import causal_pieces
from solver.budgets.allocate import LOSS_TOLERANCE
from solver.budgets.basis import Basis
from solver.budgets.least_loss import least_loss
from solver.budgets.options import BudgetOptions
from solver.deadline import Deadline

BLOCK = 64
SELECTION = Sampled(rows=8)
"""Of blocks of 64: scores an eighth of their rows, 6 % of dense attention's products, beside the
pairs. What sizes name no other rows choose by."""
Budgets = Callable[[Setting, int], Ints]
"""Tokens [layers, heads] of a mean of so many pieces a head."""


@dataclass(frozen=True)
class Size:
    """Query rows that share a list, the keys that it names, and how many of the rows choose."""

    block: int
    piece: int
    rows: int = SELECTION.rows

    @property
    def name(self) -> str:
        few = "" if self.rows == SELECTION.rows else f"r{self.rows}"
        return f"{self.block}x{self.piece}{few}"

    @property
    def selection(self) -> Sampled:
        return Sampled(rows=self.rows)


@dataclass(frozen=True)
class Chosen:
    """A policy at a share; `setup` names its budgets and how keys are chosen within them."""

    policy: Policy
    setup: str


def share_of(blocks: int, context: int) -> float:
    """Of dense attention's pairs, what uniform budgets of so many 64 x 64 blocks compute."""
    rows = -(-context // BLOCK)
    return causal_pieces(blocks, rows) / causal_pieces(rows, rows)


def solver_policy(policy: str, scope: str = "layer", error: str = "output") -> Budgets:
    """What the solver makes of a profile."""
    return lambda setting, pieces: setting.allocate(policy, scope, pieces, error=error)


def mean_recovery(setting: Setting, pieces: int) -> Ints:
    """The greatest mean recovery of each layer's heads."""
    at = setting.workload
    basis = Basis.of(setting.profile, BudgetOptions(curve=setting.curve))
    assert basis is not None

    def cost(budgets: Ints) -> Ints:
        return causal_pieces(budgets, at.context_blocks, at.block_pieces)

    each, floor = (
        int(budget_pieces(np.array(tokens), at))
        for tokens in (pieces * at.piece_tokens, setting.floor_tokens)
    )
    lost = 1 - basis.expected.at(at).table()
    soon = Deadline(time.monotonic() + SEARCH_S, Event())
    total = lost.shape[1] * int(cost(np.array([each]))[0])
    found = least_loss(lost, total, min(floor, each), cost, LOSS_TOLERANCE, soon)
    return np.minimum(found.pieces * at.piece_tokens, setting.context_tokens)


BUDGETS: dict[str, Budgets] = {
    "streaming_llm": solver_policy("uniform"),
    "uniform": solver_policy("uniform"),
    "shifting": solver_policy("max_min_shifting"),
    "max_min": solver_policy("max_min"),
    "max_min_model": solver_policy("max_min", "model"),
    "mean_recovery": mean_recovery,
    "least_error": solver_policy("least_error"),
    "least_error_model": solver_policy("least_error", "model"),
    "least_gradient_error": solver_policy("least_error", "model", "gradient"),
}


def chosen(name: str, profile: ModelProfile, size: Size, context: int, blocks: int) -> Chosen:
    """`name`'s budgets within what uniform budgets of `blocks` 64 x 64 blocks compute."""
    setting = Setting(profile, context, size.block, [context], BLOCK, piece_tokens=size.piece)
    layers, heads = profile.heads.shape()
    rows = -(-context // BLOCK)
    pairs = layers * heads * BLOCK * BLOCK * causal_pieces(blocks, rows)
    found: Fitted = fit(
        setting,
        lambda pieces: BUDGETS[name](setting, pieces),
        pairs // (size.block * size.piece),
        blocks * BLOCK // size.piece,
    )
    selection: Selection = (
        SinkLocal(sink_tokens=size.piece) if name == "streaming_llm" else size.selection
    )
    policy = BudgetPolicy(
        found.tokens, selection=selection, block_tokens=size.block, piece_tokens=size.piece
    )
    named = [found.tokens.tolist(), selection.model_dump(), size.name]
    return Chosen(policy, _digest(named))


def watch(name: str, loaded: Loaded, documents: list[Document], context: int) -> Watching:
    """What a policy that chooses while it runs would keep of the documents, at every p."""
    config = loaded.model.config
    watching = Watching(config.num_hidden_layers, config.num_attention_heads, BLOCK, ONLINE[name])
    for document in documents:
        ids = tuple(loaded.tokenizer(document.text, verbose=False)["input_ids"][:context])
        logits_at_once(loaded.model, ids, (len(ids) - 1,), watching, BLOCK)
    return watching


def online(name: str, watched: Watching, share: float) -> Chosen:
    """`name` in square blocks, its p such that the watched documents compute that share."""
    calibrated = Calibrated.at(watched, share)
    policy = TopP(calibrated.beyond, BLOCK, ONLINE[name])
    return Chosen(policy, _digest([name, calibrated.beyond]))


def _digest(named: object) -> str:
    return sha256(json.dumps(named).encode()).hexdigest()[:12]
