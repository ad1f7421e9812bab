"""Heads on devices whose idle time is to be filled."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from profiles.cost.work import Phase, Workload, budget_pieces
from profiles.sizes import causal_pieces
from solver.budgets.curves import Floats, Ints, MeasuredCurves, RecoveryCurves
from solver.budgets.fill_bubble import fill_bubble
from tests.solver.budgets.builders import BLOCK, by_block, random_curves, small_curves


@dataclass(frozen=True, eq=False)
class Case:
    """Heads on devices; in decode a group's largest budget is charged wherever it is present."""

    tokens: Ints
    curves: RecoveryCurves
    workload: Workload
    shares: Floats
    room_s: Floats
    speed: Floats
    group_size: int

    def head_seconds(self, tokens: Ints) -> Floats:
        pieces, step = budget_pieces(tokens, self.workload), self.workload
        work = pieces
        if step.phase == "prefill":
            work = causal_pieces(pieces, step.context_blocks, step.block_pieces)
        return np.asarray((5 + work)[..., None] * self.speed)

    def group_seconds(self, tokens: Ints) -> Floats:
        blocks = budget_pieces(tokens, self.workload)
        largest = blocks.reshape(len(blocks), -1, self.group_size).max(axis=-1)
        charge = np.full_like(largest, 7) if self.workload.phase == "prefill" else 2 * largest
        return np.asarray(charge[..., None] * self.speed)

    def loads_s(self, tokens: Ints) -> Floats:
        layers, _, devices = self.shares.shape
        present = self.shares.reshape(layers, -1, self.group_size, devices).any(axis=2)
        charges = np.where(present, self.group_seconds(tokens), 0).sum(axis=1)
        return np.asarray((self.shares * self.head_seconds(tokens)).sum(axis=1) + charges)

    def recovery(self, tokens: Ints) -> Floats:
        return self.curves.at(budget_pieces(tokens, self.workload))

    def spare(self, tokens: Ints) -> float:
        """The least room left on any device, as a share of its load."""
        loads = self.loads_s(tokens)
        left = self.room_s - (loads - self.loads_s(self.tokens))
        return float((left / np.maximum(loads, 1)).min())

    def filled(self) -> Ints:
        return fill_bubble(
            self.tokens,
            self.curves,
            self.workload,
            self.shares,
            self.room_s,
            self.head_seconds,
            self.group_seconds,
        )


def placed(rng: np.random.Generator, layers: int, heads: int, devices: int, divide: bool) -> Floats:
    """Shares `[layers, heads, devices]`: whole heads, or half of them in two or three parts."""
    shares = np.zeros((layers, heads, devices))
    for layer, head in np.ndindex(layers, heads):
        parts = rng.integers(2, 4) if divide and rng.random() < 0.5 else 1
        chosen = rng.choice(devices, min(parts, devices), replace=False)
        shares[layer, head, chosen] = rng.dirichlet(np.full(len(chosen), 5.0))
    return shares


def case_of(
    curves: RecoveryCurves, seed: int, phase: Phase, divide: bool, slack: bool, own: int = 1
) -> Case:
    """Random budgets and placement; room as the makespan leaves it, or with `slack` anything.

    `own` pieces of BLOCK tokens make a query block.
    """
    rng = np.random.default_rng(seed)
    layers, heads = curves.recovery.shape[:-1]
    group_size = int(rng.choice([size for size in (1, 2, 3) if heads % size == 0]))
    devices = int(rng.integers(1, 4))
    workload = Workload(curves.context_tokens, phase, block_tokens=own * BLOCK, piece_tokens=BLOCK)
    pieces = rng.integers(workload.least_pieces, curves.context_pieces + 1, (layers, heads))
    case = Case(
        tokens=np.minimum(pieces * BLOCK, curves.context_tokens),
        curves=curves,
        workload=workload,
        shares=placed(rng, layers, heads, devices, divide),
        room_s=np.zeros((layers, devices)),
        speed=rng.choice([1.0, 1.5, 0.3], devices),
        group_size=group_size,
    )
    loads = case.loads_s(case.tokens)
    room = rng.uniform(0, 2, loads.shape) * loads.mean() * (rng.random(loads.shape) < 0.7)
    return replace(case, room_s=room if slack else loads.max(axis=1, keepdims=True) - loads)


@st.composite
def cases(draw: st.DrawFn, curves: Callable[[st.DrawFn], RecoveryCurves]) -> Case:
    return case_of(
        curves(draw),
        draw(st.integers(0, 10_000)),
        draw(st.sampled_from(["prefill", "decode"])),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.sampled_from([1, 1, 2])),
    )


def tiny(draw: st.DrawFn) -> RecoveryCurves:
    return draw(small_curves())


def measured(draw: st.DrawFn) -> RecoveryCurves:
    form = random_curves(draw(st.integers(0, 1000)), layers=2, heads=6)
    return MeasuredCurves.of(form).at(Workload(draw(st.sampled_from([1000, 2048, 8192]))))


def one_layer(blocks: list[int], shares: list[list[float]], phase: Phase = "prefill") -> Case:
    """Heads with recovery of a tenth a block, each a group of its own, on devices alike."""
    heads = len(blocks)
    case = Case(
        tokens=np.array([blocks]) * BLOCK,
        curves=by_block(np.tile(np.arange(1, 10) / 10, (1, heads, 1))),
        workload=Workload(10 * BLOCK, phase),
        shares=np.array([shares]),
        room_s=np.zeros((1, len(shares[0]))),
        speed=np.ones(len(shares[0])),
        group_size=1,
    )
    loads = case.loads_s(case.tokens)
    return replace(case, room_s=loads.max() - loads)
