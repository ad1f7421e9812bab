"""Budgets of a policy for a number of computed tiles: as many as fit, and never more."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event

import numpy as np
from numpy.typing import NDArray

from executor.errors import EvaluationError
from profiles.cost.work import Workload, budget_pieces
from profiles.model import ModelProfile
from profiles.sizes import causal_pieces
from solver.budgets.allocate import allocate
from solver.budgets.basis import Basis
from solver.budgets.options import FLOORED, BudgetOptions, Curve, Policy
from solver.deadline import Deadline

Ints = NDArray[np.int64]
SEARCH_S = 1.0
"""How long `elastic` and `least_error` may search, each time they are asked."""


@dataclass(frozen=True, eq=False)
class Setting:
    """What budgets are made for: a context, and the `lengths` in tokens of the prompts there.

    `floor_tokens` and `curve` are those of `solver.budgets.options.BudgetOptions`; `piece_tokens`
    is a block unless given (0).
    """

    profile: ModelProfile
    context_tokens: int
    block_tokens: int
    lengths: Sequence[int]
    floor_tokens: int
    curve: Curve | None = None
    piece_tokens: int = 0

    @property
    def workload(self) -> Workload:
        return self.workload_of(self.context_tokens)

    def workload_of(self, tokens: int) -> Workload:
        """A prompt of so many tokens, in blocks and pieces of these sizes."""
        return Workload(tokens, block_tokens=self.block_tokens, piece_tokens=self.piece_tokens)

    def tiles(self, tokens: Ints) -> int:
        """(query block, key piece) products that budgets [layers, heads] compute, all samples."""
        total = 0
        for length in self.lengths:
            at = self.workload_of(length)
            pieces = budget_pieces(np.asarray(tokens, dtype=np.float64), at)
            total += int(causal_pieces(pieces, at.context_blocks, at.block_pieces).sum())
        return total

    @property
    def dense_tiles(self) -> int:
        layers, heads = self.profile.heads.shape()
        return self.tiles(np.full((layers, heads), self.context_tokens, dtype=np.int64))

    def options(
        self, policy: Policy, scope: str, pieces: int, total: str = "tiles", error: str = "output"
    ) -> BudgetOptions:
        """What to ask of a policy for a mean of so many pieces a head, `total` kept fixed."""
        fields: dict[str, object] = {"policy": policy, "scope": scope, "total": total}
        fields["tokens"] = min(pieces * self.workload.piece_tokens, self.context_tokens)
        fields["error"] = error
        if policy in FLOORED:
            fields["floor_tokens"] = self.floor_tokens
        if policy != "uniform":
            fields["curve"] = self.curve
        return BudgetOptions.model_validate(fields)

    def allocate(
        self, policy: Policy, scope: str, pieces: int, total: str = "tiles", error: str = "output"
    ) -> Ints:
        """Tokens [layers, heads]. Raises BudgetError for a profile that the policy cannot use."""
        soon = Deadline(time.monotonic() + SEARCH_S, Event())
        options = self.options(policy, scope, pieces, total, error)
        basis = Basis.of(self.profile, options)
        return allocate(self.profile, basis, options, self.workload, soon).tokens

    def least_recovery(self, tokens: Ints) -> float | None:
        """The least of any head that budgets recover, where the profile has curves."""
        basis = Basis.of(self.profile, BudgetOptions(curve=self.curve))
        if basis is None:
            return None
        pieces = budget_pieces(np.asarray(tokens, dtype=np.float64), self.workload)
        return float(basis.expected.at(self.workload).at(pieces).min())


@dataclass(frozen=True, eq=False)
class Fitted:
    """`pieces`: the mean pieces a head that were asked for; tokens [layers, heads]; their tiles."""

    pieces: int
    tokens: Ints
    tiles: int


def fit(setting: Setting, budgets: Callable[[int], Ints], target_tiles: int, start: int) -> Fitted:
    """The most pieces a head, from `start` up or down, whose budgets compute at most the target.

    Raises EvaluationError where even a query block's own pieces are too much.
    """
    least, most = setting.workload.least_pieces, setting.workload.context_pieces

    def at(pieces: int) -> Fitted:
        tokens = budgets(pieces)
        return Fitted(pieces, tokens, setting.tiles(tokens))

    found = at(start)
    while found.tiles > target_tiles and found.pieces > least:
        found = at(found.pieces - 1)
    if found.tiles > target_tiles:
        share = found.tiles / setting.dense_tiles
        raise EvaluationError(
            f"--densities: {target_tiles / setting.dense_tiles:.4g} is too little at a context of "
            f"{setting.context_tokens} tokens in blocks of {setting.block_tokens}: one block a "
            f"head is {share:.4g}"
        )
    while found.pieces < most:
        larger = at(found.pieces + 1)
        if larger.tiles > target_tiles:
            break
        found = larger
    return found


def uniform_within(setting: Setting, density: float) -> Fitted:
    """The most whole pieces, the same for every head, that are at most `density` of dense's."""
    layers, heads = setting.profile.heads.shape()
    whole = setting.workload

    def budgets(pieces: int) -> Ints:
        tokens = min(pieces * whole.piece_tokens, setting.context_tokens)
        return np.full((layers, heads), tokens, dtype=np.int64)

    pieces = np.arange(whole.least_pieces, whole.context_pieces + 1)
    tiles = causal_pieces(pieces, whole.context_blocks, whole.block_pieces)
    start = int(pieces[max(0, int(np.searchsorted(tiles / tiles[-1], density, side="right")) - 1)])
    return fit(setting, budgets, int(density * setting.dense_tiles * (1 + 1e-12)), start)
