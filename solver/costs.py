"""Budgets and rates become a placement problem: seconds of every head and group on every type."""

from collections.abc import Mapping

import numpy as np

from profiles.architecture import Architecture
from profiles.cost.rates import Rates
from profiles.cost.work import INDEX, Workload, group_work, head_work
from profiles.errors import HplbError
from solver.problem import Floats, Ints, PlacementProblem
from solver.request import PlacementOptions

MAX_PAIRS = 2**24
"""Heads of all layers times devices: 61 layers of 128 heads on 384 devices are a fifth of it."""


class CostError(HplbError):
    """A cost came out that no placement can be made with."""


def placement_problem(
    budgets: Floats | Ints,
    architecture: Architecture,
    workload: Workload,
    types: list[str],
    rates: Mapping[str, Rates],
    rules: PlacementOptions,
) -> PlacementProblem:
    """Cost every head, group and launch for devices of `types`, by index.

    `budgets` [layers, heads] tokens; `rates` by device type, all of the workload's phase.
    """
    tokens = np.asarray(budgets, dtype=np.float64)
    if tokens.size * len(types) > MAX_PAIRS:
        raise CostError(
            f"{tokens.size} heads on {len(types)} devices: more than {MAX_PAIRS} pairs of head "
            "and device are not planned at once"
        )
    names = list(dict.fromkeys(types))
    by_head = head_work(tokens, architecture, workload)
    by_group = group_work(tokens, architecture, workload)
    head_s = np.stack([rates[name].seconds(by_head) for name in names], axis=-1)
    group_s = np.stack([rates[name].seconds(by_group) for name in names], axis=-1)
    _check(head_s, names)
    return PlacementProblem(
        head_s=head_s,
        group_s=group_s,
        launch_s=np.array([rates[name].vector[INDEX["launches"]] for name in names]),
        type_of=np.array([names.index(name) for name in types], dtype=np.int64),
        unit=rules.unit,
        equal_counts=rules.equal_counts,
    )


def _check(head_s: Floats, names: list[str]) -> None:
    usable = np.isfinite(head_s) & (head_s > 0)
    if not usable.all():
        layer, head, of_type = np.argwhere(~usable)[0]
        raise CostError(
            f"layer {layer}, head {head}: costs {head_s[layer, head, of_type]} s on "
            f"{names[of_type]}; the rates must make every head's cost positive and finite"
        )
