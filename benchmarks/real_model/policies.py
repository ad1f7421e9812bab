"""The policies that are compared, at the (query, key) pairs that uniform budgets compute.

Uniform's budget is whole blocks of 64 x 64: its pairs are the target of every other policy, whole
tiles and dense layers included. Budgets keep within them; what chooses while it runs meets them on
the documents that its p was set on, and computes more or less on others. Budgets' floor and sizes
are the same for all.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from threading import Event

import numpy as np
import torch
from torch import Tensor

from benchmarks.real_model.documents import Document
from executor.evaluation.block_masses import Masses
from executor.evaluation.density import SEARCH_S, Fitted, Ints, Setting, fit
from executor.evaluation.methods import ONLINE
from executor.evaluation.scoring import logits_at_once
from executor.evaluation.top_p import (
    BINS_AN_OCTAVE,
    OCTAVES,
    Calibrated,
    TopP,
    Watching,
    attend_to,
    mass_left,
)
from executor.inference.budget_policy import BudgetPolicy
from executor.inference.policy import Attended, LayerCall, Policy
from profiles.cost.work import budget_pieces
from profiles.measuring.loading import Loaded
from profiles.model import ModelProfile
from profiles.selection import Sampled, Selection, SinkLocal
from profiles.sizes import causal_pieces
from solver.budgets.allocate import LOSS_TOLERANCE
from solver.budgets.basis import Basis
from solver.budgets.curves import Floats
from solver.budgets.least_error import error_table
from solver.budgets.least_loss import least_loss
from solver.budgets.options import BudgetOptions
from solver.deadline import Deadline
from solver.planning.planner import plan
from solver.plans import Plan

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
    """A policy at a share; `setup` names its budgets and how keys are chosen within them.

    `pairs` of dense attention's its lists hold, where budgets say how long they are.
    """

    policy: Policy | None
    setup: str
    pairs: float | None = None


DENSE = Chosen(None, "", 1.0)


def share_of(blocks: int, context: int) -> float:
    """Of dense attention's pairs, what uniform budgets of so many 64 x 64 blocks compute."""
    rows = -(-context // BLOCK)
    return causal_pieces(blocks, rows) / causal_pieces(rows, rows)


def solver_policy(policy: str, scope: str = "layer", error: str = "output") -> Budgets:
    """What the solver makes of a profile."""
    return lambda setting, pieces: setting.allocate(policy, scope, pieces, error=error)


def mean_recovery(setting: Setting, pieces: int) -> Ints:
    """The greatest mean recovery of each layer's heads."""
    basis = Basis.of(setting.profile, BudgetOptions(curve=setting.curve))
    assert basis is not None
    lost = 1 - basis.expected.at(setting.workload).table()
    return _least(setting, lost, pieces, lost.shape[1])


def with_floor(setting: Setting, pieces: int) -> Ints:
    """Least error where no head has less than two pieces beside its query block's own: room for
    the sink and the nearest, whatever is chosen."""
    floor = setting.floor_tokens + 2 * setting.workload.piece_tokens
    return replace(setting, floor_tokens=floor).allocate("least_error", "model", pieces)


def first_dense(layers: int) -> Budgets:
    """Least error of what the first `layers`, which are dense, leave of all heads' pairs."""

    def budgets(setting: Setting, pieces: int) -> Ints:
        lost = error_table(setting.profile, "output", setting.workload)
        heads, most = lost.shape[:2], lost.shape[2]
        left = lost[layers:].reshape(1, -1, most)
        found = _least(setting, left, pieces, heads[0] * heads[1], layers * heads[1])
        dense = np.full((layers, heads[1]), setting.context_tokens)
        return np.concatenate([dense, found.reshape(-1, heads[1])])

    return budgets


def _least(setting: Setting, lost: Floats, pieces: int, heads: int, dense: int = 0) -> Ints:
    """Tokens [pools, heads] that lose least of `lost` [pools, heads, pieces], where each pool has
    the pairs of so many `heads` with `pieces` each, less those of `dense` heads."""
    at = setting.workload

    def cost(budgets: Ints) -> Ints:
        return causal_pieces(budgets, at.context_blocks, at.block_pieces)

    each, floor = (
        int(budget_pieces(np.array(tokens), at))
        for tokens in (pieces * at.piece_tokens, setting.floor_tokens)
    )
    drawn, whole = cost(np.array([each, at.context_pieces])).tolist()
    soon = Deadline(time.monotonic() + SEARCH_S, Event())
    total = heads * drawn - dense * whole
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
    "floor": with_floor,
    "first_dense": first_dense(1),
    "two_dense": first_dense(2),
}
BY_BLOCK = "by_query_block"
TRIES = ("floor", "first_dense", "two_dense", BY_BLOCK)
"""Steps beside the objective towards the aims, each on top of `TRIED_ON`."""
TRIED_ON = "least_error_model"
PROMISED = "promised"
PROMISES = (0.01, 0.02, 0.05)
"""Nats a token that `hplb plan --budget-loss` is asked to keep to."""
WATCHED: dict[str, Masses] = {**ONLINE, BY_BLOCK: ONLINE["top_p"]}


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
    # Nearly full lists computed densely would be more pairs than were fitted.
    policy = BudgetPolicy(
        found.tokens,
        selection=selection,
        block_tokens=size.block,
        piece_tokens=size.piece,
        as_chosen=True,
    )
    named = [found.tokens.tolist(), selection.model_dump(), size.name]
    return Chosen(policy, _digest(named), found.tiles / setting.dense_tiles)


def watch(name: str, loaded: Loaded, documents: list[Document], context: int) -> Watching:
    """What a policy that chooses while it runs would keep of the documents, at every p."""
    config = loaded.model.config
    watching = Watching(config.num_hidden_layers, config.num_attention_heads, BLOCK, WATCHED[name])
    for document in documents:
        ids = tuple(loaded.tokenizer(document.text, verbose=False)["input_ids"][:context])
        logits_at_once(loaded.model, ids, (len(ids) - 1,), watching, BLOCK)
    return watching


def online(name: str, watched: Watching, share: float) -> Chosen:
    """`name` in square blocks, its p such that the watched documents compute that share."""
    calibrated = Calibrated.at(watched, share)
    policy = TopP(calibrated.beyond, BLOCK, ONLINE[name])
    return Chosen(policy, _digest([name, calibrated.beyond]))


@dataclass(frozen=True, eq=False)
class ByQueryBlock:
    """A policy in square blocks: a query block's list holds all but `beyond` [layers, heads] of its
    attention, so that a head's lists are as unlike as its query blocks are."""

    beyond: Tensor

    def attend(self, call: LayerCall) -> Attended:
        left = mass_left(call, WATCHED[BY_BLOCK](call, BLOCK), BLOCK)
        kept = left > self.beyond[call.layer][:, None, None]
        tiles, dense = int(kept.sum()), int((left > -torch.inf).sum())
        return Attended(attend_to(call, kept, BLOCK), tiles, dense)


def by_query_block(profile: ModelProfile, watched: Watching, context: int, blocks: int) -> Chosen:
    """Least error's budgets as means: every head's p such that on the watched documents it computes
    its budget's pairs. No budget is below the two blocks that such a list always has."""
    setting = Setting(profile, context, BLOCK, [context], 2 * BLOCK)
    tokens = setting.allocate("least_error", "model", blocks)
    at = setting.workload
    tiles = causal_pieces(budget_pieces(tokens, at), at.context_blocks, at.block_pieces)
    share = torch.from_numpy(tiles / causal_pieces(at.context_blocks, at.context_blocks))
    kept = watched.counts.flip(-1).cumsum(-1).flip(-1) + watched.always[..., None]
    fits = kept <= share[..., None] * kept[..., :1]
    first = torch.where(fits.any(-1), fits.int().argmax(-1), fits.shape[-1])
    beyond = 2.0 ** (first / BINS_AN_OCTAVE - OCTAVES)
    return Chosen(ByQueryBlock(beyond), _digest([BY_BLOCK, beyond.tolist()]))


def promise(nats: float, context: int) -> Plan:
    """What `hplb plan -p smollm2-135m --context N --budget-loss X` takes."""
    return plan("smollm2-135m", gpus=8, context_tokens=context, loss=nats)


def promised(made: Plan) -> Chosen:
    return Chosen(BudgetPolicy.of_plan(made), _digest(made.budgets))


def _digest(named: object) -> str:
    return sha256(json.dumps(named).encode()).hexdigest()[:12]
