"""Heads on devices by nothing but their costs: any array, no model, no workload."""

from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike

from profiles.errors import HplbError
from solver.problem import Assignment, PlacementProblem
from solver.request import MAX_DEVICES, Method
from solver.search.solve import Search, solve
from solver.shares import Floats, Shares


class CostsError(HplbError, ValueError):
    """The costs are not such as can be placed; says where."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Who does what of every head, and how good that is proved to be.

    `placed` [layers] are the parts of heads that devices do; `loads_s` [layers, devices]. Makespan
    and bound are sums over the layers, a barrier after each; `proofs` [layers] name what bounds
    each. `reason` says why the search stopped short of the tolerance, None where it did not.
    """

    placed: list[Shares]
    loads_s: Floats
    lower_bound_s: float
    proofs: list[str]
    reason: str | None

    @cached_property
    def shares(self) -> Floats:
        """The fraction of every head that every device does, `[layers, heads, devices]`."""
        return np.stack([shares.dense for shares in self.placed])

    @property
    def makespan_s(self) -> float:
        return float(self.loads_s.max(axis=1).sum())

    @property
    def gap(self) -> float:
        """No placement is better by more than this part of the makespan."""
        return max(0.0, 1 - self.lower_bound_s / self.makespan_s)

    @property
    def device_of_head(self) -> Assignment:
        """The device with most of each head, `[layers, heads]`."""
        return np.stack([shares.assignment for shares in self.placed])


def place(
    costs: ArrayLike,
    devices: int,
    *,
    equal_counts: bool = False,
    divisible: bool = False,
    max_copies: int | None = None,
    method: Method = "auto",
    time_limit_s: float = 10.0,
    tolerance: float = 1e-3,
    seed: int | None = None,
) -> Placement:
    """Place heads of these costs on identical devices, for the least sum of layers' largest loads.

    `costs` [layers, heads] or [heads], in seconds or any unit; whole numbers are proved exactly.
    `equal_counts`: numbers of heads at most one apart, as stock tensor-parallel engines and EPLB's
    packing have it. `divisible`: up to `max_copies` devices share a head. Raises CostsError.
    """
    try:
        cost = np.atleast_2d(np.asarray(costs, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise CostsError(f"costs: must be numbers [layers, heads]: {error}") from None
    _check_costs(cost)
    _check_rules(devices, equal_counts, divisible, max_copies)
    how = Search(method=method, tolerance=tolerance, time_limit_s=time_limit_s, seed=seed)
    _check_search(how, divisible)
    layers, heads = cost.shape
    problem = PlacementProblem(
        head_s=cost[None, :, :, None],
        part_s=np.zeros((1, layers, heads, 1)),
        group_s=np.zeros((1, layers, heads, 1)),
        launch_s=np.zeros((1, 1)),
        weights=np.ones(1),
        type_of=np.zeros(devices, dtype=np.int64),
        equal_counts=equal_counts,
        divisible=divisible and max_copies != 1,
        max_copies=max_copies,
    )
    solution = solve(problem, how)
    placed = [layer.shares for layer in solution.layers]
    [loads] = problem.loads_of_each([placed])
    return Placement(
        placed=placed,
        loads_s=loads,
        lower_bound_s=solution.lower_bound_s,
        proofs=[layer.bound.proof for layer in solution.layers],
        reason=solution.reason,
    )


def _check_costs(cost: Floats) -> None:
    if cost.ndim != 2 or not cost.size:
        raise CostsError(f"costs: must be [layers, heads], not of shape {list(cost.shape)}")
    wrong = ~np.isfinite(cost) | (cost < 0)
    if wrong.any():
        layer, head = np.argwhere(wrong)[0]
        raise CostsError(
            f"costs: layer {layer}, head {head}: {cost[layer, head]}, must be finite and at least 0"
        )
    if not (cost.sum(axis=1) > 0).all():
        layer = int(np.argmax(cost.sum(axis=1) <= 0))
        raise CostsError(f"costs: layer {layer}: every head costs 0; nothing is to be placed")


def _check_rules(devices: int, equal_counts: bool, divisible: bool, max_copies: int | None) -> None:
    if not _whole(devices) or not 1 <= devices <= MAX_DEVICES:
        raise CostsError(f"devices: {devices!r}, must be a whole number from 1 to {MAX_DEVICES}")
    if divisible and equal_counts:
        raise CostsError("divisible: engines that want equal_counts run whole heads")
    if max_copies is not None and not divisible:
        raise CostsError("max_copies: is for divisible placements; whole heads are on one device")
    if max_copies is not None and not (_whole(max_copies) and max_copies >= 1):
        raise CostsError(f"max_copies: {max_copies!r}, must be a whole number of at least 1")


def _check_search(how: Search, divisible: bool) -> None:
    if how.method not in get_args(Method):
        raise CostsError(f"method: {how.method!r}, must be one of {', '.join(get_args(Method))}")
    if divisible and how.method != "auto":
        raise CostsError(f"method: {how.method!r} cannot divide heads; use 'auto'")
    if not how.time_limit_s > 0:
        raise CostsError(f"time_limit_s: {how.time_limit_s}, must be above 0")
    if not 0 <= how.tolerance < 1:
        raise CostsError(f"tolerance: {how.tolerance}, must be at least 0 and below 1")


def _whole(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)
