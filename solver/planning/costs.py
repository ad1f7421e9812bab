"""Budgets and rates become a placement problem: seconds of every head and group on every type."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from profiles.architecture import Architecture
from profiles.cost.rates import Rates
from profiles.cost.work import FEATURES, INDEX, Workload, group_work, head_work
from profiles.errors import HplbError
from profiles.selection import POOLED, Selection, of_layer
from solver.problem import PlacementProblem
from solver.request import PlacementOptions
from solver.shares import Floats, Ints

MAX_PAIRS = 2**24
"""Heads of all layers times devices: 61 layers of 128 heads on 384 devices are a fifth of it."""


class CostError(HplbError):
    """A cost came out that no placement can be made with."""


@dataclass(frozen=True, eq=False)
class Demand:
    """One workload of a placement: what every head may attend to there, and at which rates.

    `budgets` [layers, heads] tokens; `rates` by device type, all of the workload's phase;
    `selection`: how heads choose their pieces.
    """

    workload: Workload
    budgets: Floats | Ints
    rates: Mapping[str, Rates]
    weight: float = 1.0
    selection: Selection = POOLED


def placement_problem(
    demands: Sequence[Demand],
    architecture: Architecture,
    types: list[str],
    rules: PlacementOptions,
) -> PlacementProblem:
    """Cost every head, group and launch for devices of `types`, by index.

    With slots, whose number must be settled, a launch is what a device pays whatever it holds.
    """
    pairs = demands[0].budgets.size * len(types) * len(demands)
    if pairs > MAX_PAIRS:
        raise CostError(
            f"{demands[0].budgets.size} heads on {len(types)} devices for {len(demands)} "
            f"workloads: more than {MAX_PAIRS} pairs of head and device are not planned at once"
        )
    names = list(dict.fromkeys(types))
    costs = [_seconds(demand, architecture, names, rules) for demand in demands]
    head_s, part_s, group_s, launch_s = (np.stack(arrays) for arrays in zip(*costs, strict=True))
    weights = np.array([demand.weight for demand in demands])
    return PlacementProblem(
        head_s=head_s,
        part_s=part_s,
        group_s=group_s,
        launch_s=launch_s,
        weights=weights / weights.sum(),
        type_of=np.array([names.index(name) for name in types], dtype=np.int64),
        unit=rules.unit,
        equal_counts=rules.equal_counts,
        # At most one device an item: whole items, with the proofs and searches of whole items.
        divisible=rules.divisible and rules.max_copies != 1,
        max_copies=rules.max_copies,
        slots=slots_of(rules),
    )


def slots_of(rules: PlacementOptions) -> int | None:
    """KV slots of every device, once their number is settled."""
    assert rules.slots != "auto"  # The planner has chosen.
    return rules.slots


def _seconds(
    demand: Demand, architecture: Architecture, names: list[str], rules: PlacementOptions
) -> tuple[Floats, Floats, Floats, Floats]:
    """Seconds of heads, of what their parts repeat, of groups and of launches, types last."""
    tokens = np.asarray(demand.budgets, dtype=np.float64)
    by_head = np.empty((*tokens.shape, len(FEATURES)))
    chosen = [of_layer(demand.selection, architecture, layer) for layer in range(len(tokens))]
    for selection in {id(each): each for each in chosen}.values():
        alike = [layer for layer, each in enumerate(chosen) if each is selection]
        by_head[alike] = head_work(tokens[alike], architecture, demand.workload, selection)
    by_group = group_work(tokens, architecture, demand.workload)
    launch = np.zeros(len(FEATURES))
    launch[INDEX["launches"]] = 1
    slots = slots_of(rules)
    if slots is not None:
        projected = INDEX["projection_flops"]
        # A slot's keys and values, and the queries and outputs of as many heads as a group has.
        slot = by_group[0, 0, projected] + architecture.group_size * by_head[0, 0, projected]
        launch[projected] = slots * slot
        by_head[..., projected] = by_group[..., projected] = 0
    repeated = np.zeros_like(by_head)
    if rules.divisible and rules.copies == "priced":
        scored = INDEX["scored_blocks"]
        repeated[..., scored] = by_head[..., scored]
    head_s, part_s, group_s = (
        np.stack([demand.rates[name].seconds(work) for name in names], axis=-1)
        for work in (by_head, repeated, by_group)
    )
    if rules.copies == "free":
        size = architecture.group_size
        head_s = head_s + np.repeat(group_s, size, axis=1) / size
        group_s = np.zeros_like(group_s)
    _check(head_s, names)
    launch_s = np.array([float(demand.rates[name].seconds(launch)) for name in names])
    return head_s, part_s, group_s, launch_s


def _check(head_s: Floats, names: list[str]) -> None:
    usable = np.isfinite(head_s) & (head_s > 0)
    if not usable.all():
        layer, head, of_type = np.argwhere(~usable)[0]
        raise CostError(
            f"layer {layer}, head {head}: costs {head_s[layer, head, of_type]} s on "
            f"{names[of_type]}; the rates must make every head's cost positive and finite"
        )
