"""Leaving the current plan: what must be fetched, and the layers where it pays.

Every device fetches over its own link, so that moving takes as long as the slowest device's
bytes. It pays where the seconds gained in each of `amortise_steps` steps outweigh that once.
Layers are decided one by one: first each on its own seconds, then flipped as long as the whole
gets better; the whole is never worse than moving everything, nor than moving nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from profiles.architecture import Architecture
from profiles.catalogue import device_profile
from profiles.errors import HplbError
from solver.coupling.footprint import fetched_bytes
from solver.coupling.relabel import Shared
from solver.deadline import Deadline
from solver.plans import Plan
from solver.problem import LayerProblem, PlacementProblem
from solver.shares import Floats, Shares
from solver.solution import LayerSolution

Choice = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
"""Which layers move, `[layers]`."""


class MovingError(HplbError):
    """The current plan is for another model or other devices, so that nothing can be compared."""


@dataclass(frozen=True, eq=False)
class CurrentPlacement:
    """Where a deployment is now: the heads' shares `[layers]`, links `[devices]`."""

    shares: Sequence[Shares]
    link_bytes_per_s: Floats
    amortise_steps: int
    plan_id: str

    def makespans_s(self, problem: PlacementProblem) -> Floats:
        """Makespans of the current placement at the problem's costs, `[layers]`."""
        by_head = problem.by_head()
        layers = [by_head.layer(index) for index in range(problem.layers)]
        return np.array(
            [
                layer.objective(layer.loads_of_shares(s))
                for layer, s in zip(layers, self.shares, strict=True)
            ]
        )

    def kept(self, problem: PlacementProblem) -> list[Shares | None]:
        """Shares of the problem's items, for every layer that obeys its rules as it is."""
        found: list[Shares | None] = []
        for index, shares in enumerate(self.shares):
            size = problem.heads // problem.kv_heads if problem.whole_groups else 1
            items = shares.rows(np.arange(0, problem.heads, size))
            whole_items = problem.shares_of_heads(items).equals(shares)
            obeys = whole_items and _obeys(problem.layer(index), items)
            found.append(items if obeys else None)
        return found

    def check(self, problem: PlacementProblem) -> None:
        """Raise MovingError unless the shapes agree."""
        wanted = (problem.layers, problem.heads, problem.devices)
        found = (len(self.shares), self.shares[0].items, self.shares[0].devices)
        if found != wanted or self.link_bytes_per_s.shape != wanted[2:]:
            raise MovingError(
                f"current_plan {self.plan_id}: layers, heads and devices are "
                f"{found}, the request has {wanted}"
            )


@dataclass(frozen=True, eq=False)
class Moved:
    """The layers as they come to be, and what that takes."""

    layers: list[LayerSolution]
    fetched_bytes: int
    seconds: float
    kept: bool


def current_placement(
    plan: Plan, architecture: Architecture, types: Sequence[str], amortise_steps: int
) -> CurrentPlacement:
    """What a plan places where, if it is for this model and these devices."""
    for field in type(architecture).model_fields:
        now, wanted = (getattr(of.attention, field) for of in (plan.architecture, architecture))
        if now != wanted:
            raise MovingError(
                f"placement.current_plan: plan {plan.id}: {field} is {now}, the request's {wanted}"
            )
    if plan.devices != list(types):
        raise MovingError(
            f"placement.current_plan: plan {plan.id}: its devices are {_counted(plan.devices)}, "
            f"the request's {_counted(types)}, and both must be the same in the same order"
        )
    _check_cover(plan, architecture)
    links = np.array([device_profile(name).link_bandwidth for name in types])
    return CurrentPlacement(plan.placed, links, amortise_steps, plan.id)


def _check_cover(plan: Plan, architecture: Architecture) -> None:
    """Every layer there, and every head wholly on devices there are."""
    where = f"placement.current_plan: plan {plan.id}"
    if len(plan.layers) != architecture.layers:
        raise MovingError(f"{where}: has {len(plan.layers)} layers, not {architecture.layers}")
    for index, layer in enumerate(plan.layers):
        if len(layer.heads) != architecture.query_heads:
            raise MovingError(
                f"{where}: layer {index} has {len(layer.heads)} heads, "
                f"not {architecture.query_heads}"
            )
        for head, entries in enumerate(layer.heads):
            devices = [entry.device for entry in entries]
            total = sum(entry.share for entry in entries)
            known = all(device < len(plan.devices) for device in devices)
            if not known or len(set(devices)) != len(devices) or abs(total - 1) > 1e-9:
                raise MovingError(
                    f"{where}: layer {index}, head {head}: must be shared out once over devices "
                    f"0 to {len(plan.devices) - 1}"
                )


def decide_moves(
    shared: Shared,
    solutions: Sequence[LayerSolution],
    current: CurrentPlacement,
    deadline: Deadline,
) -> Moved:
    """The new placement in the layers where moving pays, the current one in the others."""
    problem, footprint = shared.problem, shared.footprint
    now_s, kept = current.makespans_s(problem), current.kept(problem)
    wanted = [problem.shares_of_heads(s.shares) for s in solutions]
    new = [footprint.holdings(index, shares) for index, shares in enumerate(wanted)]
    now = [footprint.holdings(index, shares) for index, shares in enumerate(current.shares)]
    fetched = np.array([fetched_bytes(*pair) for pair in zip(new, now, strict=True)])
    ledger = _Ledger(
        gain_s=now_s - np.array([s.makespan_s for s in solutions]),
        fetch_s=fetched / current.link_bytes_per_s,
        steps=current.amortise_steps,
        must=np.array([shares is None for shares in kept]),
        new=np.array([held.sum(axis=1) for held in new]),
        now=np.array([held.sum(axis=1) for held in now]),
        limits=shared.limits,
    )
    moves = ledger.best(deadline)
    layers = [
        solution if moving else _staying(solution, own, seconds)
        for solution, moving, own, seconds in zip(solutions, moves, kept, now_s, strict=True)
    ]
    return Moved(layers, int(fetched[moves].sum()), ledger.seconds(moves), not moves.any())


@dataclass(frozen=True, eq=False)
class _Ledger:
    """Gain [layers] and fetching [layers, devices] in seconds; bytes new and now, as large."""

    gain_s: Floats
    fetch_s: Floats
    steps: int
    must: Choice
    new: Floats
    now: Floats
    limits: Floats | None

    def seconds(self, moves: Choice) -> float:
        """Until the slowest device has fetched everything."""
        return float(self.fetch_s[moves].sum(axis=0).max(initial=0.0))

    def worth_s(self, moves: Choice) -> float:
        """Seconds won over all steps, less those of moving."""
        return self.steps * float(self.gain_s[moves].sum()) - self.seconds(moves)

    def allowed(self, moves: Choice) -> bool:
        """Whether layers that cannot stay move, and the mixture fits."""
        if (self.must & ~moves).any():
            return False
        held = np.where(moves[:, None], self.new, self.now).sum(axis=0)
        return self.limits is None or bool((held <= self.limits).all())

    def best(self, deadline: Deadline) -> Choice:
        """Of moving nothing, everything, and what pays by itself, each flipped to a local best."""
        alone = self.steps * self.gain_s > self.fetch_s.max(axis=1)
        everything = np.ones_like(self.must)
        starts = [self.must, self.must | alone]
        found = [everything, *(moves for moves in starts if self.allowed(moves))]
        found += [self._flipped(moves, deadline) for moves in found]
        # Of equals the one that moves least.
        return max(found, key=lambda moves: (self.worth_s(moves), -int(moves.sum())))

    def _flipped(self, moves: Choice, deadline: Deadline) -> Choice:
        """Flip the layer that wins most, until none does."""
        while deadline.left_s > 0:
            better = (self.worth_s(moves), moves)
            for layer in range(len(moves)):
                flipped = moves.copy()
                flipped[layer] = not flipped[layer]
                worth = self.worth_s(flipped)
                if worth > better[0] and self.allowed(flipped):
                    better = (worth, flipped)
            if better[1] is moves:
                break
            moves = better[1]
        return moves


def _staying(solution: LayerSolution, own: Shares | None, seconds: float) -> LayerSolution:
    """The current placement with the bound proved for any."""
    assert own is not None  # the ledger moves every layer that cannot stay
    return replace(solution, shares=own, makespan_s=float(seconds), searched=False)


def _obeys(layer: LayerProblem, shares: Shares) -> bool:
    """Whether shares obey the layer's rules."""
    if not layer.divisible:
        return not shares.divided and layer.allows(shares.assignment)
    return layer.allows_shares(shares)


def _counted(types: Sequence[str]) -> str:
    return ", ".join(f"{list(types).count(name)} {name}" for name in dict.fromkeys(types))
