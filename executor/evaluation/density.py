"""Budgets of a policy for a number of computed blocks: as many as fit, and never more."""

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
"""How long `elastic` and `influence` may search, each time they are asked."""


@dataclass(frozen=True, eq=False)
class Setting:
    """What budgets are made for: a context, and the `lengths` in tokens of the prompts there.

    `floor_tokens` and `curve` are those of `solver.budgets.options.BudgetOptions`.
    """

    profile: ModelProfile
    context_tokens: int
    block_tokens: int
    lengths: Sequence[int]
    floor_tokens: int
    curve: Curve | None = None

    @property
    def workload(self) -> Workload:
        return Workload(self.context_tokens, block_tokens=self.block_tokens)

    def tiles(self, tokens: Ints) -> int:
        """(query block, key block) products that budgets [layers, heads] compute, all samples."""
        total = 0
        for length in self.lengths:
            workload = Workload(length, block_tokens=self.block_tokens)
            blocks = budget_pieces(np.asarray(tokens, dtype=np.float64), workload)
            total += int(causal_pieces(blocks, workload.context_blocks).sum())
        return total

    @property
    def dense_tiles(self) -> int:
        layers, heads = self.profile.heads.shape()
        return self.tiles(np.full((layers, heads), self.context_tokens, dtype=np.int64))

    def options(
        self, policy: Policy, scope: str, blocks: int, total: str = "tiles"
    ) -> BudgetOptions:
        """What to ask of a policy for a mean of so many blocks a head, `total` kept fixed."""
        fields: dict[str, object] = {"policy": policy, "scope": scope, "total": total}
        fields["tokens"] = min(blocks * self.block_tokens, self.context_tokens)
        if policy in FLOORED:
            fields["floor_tokens"] = self.floor_tokens
        if policy != "uniform":
            fields["curve"] = self.curve
        return BudgetOptions.model_validate(fields)

    def allocate(self, policy: Policy, scope: str, blocks: int, total: str = "tiles") -> Ints:
        """Tokens [layers, heads]. Raises BudgetError for a profile that the policy cannot use."""
        soon = Deadline(time.monotonic() + SEARCH_S, Event())
        options = self.options(policy, scope, blocks, total)
        basis = Basis.of(self.profile, options)
        return allocate(self.profile, basis, options, self.workload, soon).tokens

    def least_recovery(self, tokens: Ints) -> float | None:
        """The least of any head that budgets recover, where the profile has curves."""
        basis = Basis.of(self.profile, BudgetOptions(curve=self.curve))
        if basis is None:
            return None
        blocks = budget_pieces(np.asarray(tokens, dtype=np.float64), self.workload)
        return float(basis.expected.at(self.workload).at(blocks).min())


@dataclass(frozen=True, eq=False)
class Fitted:
    """`blocks`: the mean blocks a head that were asked for; tokens [layers, heads]; their tiles."""

    blocks: int
    tokens: Ints
    tiles: int


def fit(setting: Setting, budgets: Callable[[int], Ints], target_tiles: int, start: int) -> Fitted:
    """The most blocks a head, from `start` up or down, whose budgets compute at most the target.

    Raises EvaluationError where even one block a head is too much.
    """
    most = setting.workload.context_blocks

    def at(blocks: int) -> Fitted:
        tokens = budgets(blocks)
        return Fitted(blocks, tokens, setting.tiles(tokens))

    found = at(start)
    while found.tiles > target_tiles and found.blocks > 1:
        found = at(found.blocks - 1)
    if found.tiles > target_tiles:
        least = found.tiles / setting.dense_tiles
        raise EvaluationError(
            f"--density: {target_tiles / setting.dense_tiles:.4g} is too little at a context of "
            f"{setting.context_tokens} tokens in blocks of {setting.block_tokens}: one block a "
            f"head is {least:.4g}"
        )
    while found.blocks < most:
        larger = at(found.blocks + 1)
        if larger.tiles > target_tiles:
            break
        found = larger
    return found


def uniform_within(setting: Setting, density: float) -> Fitted:
    """The most whole blocks, the same for every head, that are at most `density` of dense's."""
    layers, heads = setting.profile.heads.shape()

    def budgets(blocks: int) -> Ints:
        tokens = min(blocks * setting.block_tokens, setting.context_tokens)
        return np.full((layers, heads), tokens, dtype=np.int64)

    blocks = np.arange(1, setting.workload.context_blocks + 1)
    shares = causal_pieces(blocks, len(blocks)) / causal_pieces(blocks[-1:], len(blocks))
    start = max(1, int(np.searchsorted(shares, density, side="right")))
    return fit(setting, budgets, int(density * setting.dense_tiles * (1 + 1e-12)), start)
