"""Random placement problems, and the optimum of small ones by trying everything."""

import time
from dataclasses import replace
from itertools import product
from threading import Event
from typing import Any

import numpy as np
from hypothesis import strategies as st

from solver.deadline import Deadline
from solver.problem import Assignment, LayerProblem, PlacementProblem
from solver.solution import Bound, LayerSolution


def make_layer(
    items: int,
    group_size: int,
    devices: int,
    *,
    seed: int = 0,
    types: int = 1,
    equal_counts: bool = False,
    charge: float = 0.3,
    two_valued: bool = False,
    workloads: int = 1,
    **rules: Any,
) -> LayerProblem:
    """A layer of `items` heads in groups of `group_size`; device types differ by a factor."""
    rng = np.random.default_rng(seed)
    sizes = (workloads, items)
    cost = rng.choice([1.0, 12.0], sizes) if two_valued else rng.lognormal(0, 1, sizes)
    weights = np.ones(1) if workloads == 1 else rng.uniform(0.2, 1.0, workloads)
    speed = rng.uniform(0.5, 2.0, types)
    type_of = np.sort(rng.integers(0, types, devices))
    groups = items // group_size
    item_s = cost[:, :, None] * speed[type_of]
    return LayerProblem(
        item_s=item_s,
        part_s=np.zeros_like(item_s),
        group_s=np.full((workloads, groups, devices), charge) * speed[type_of],
        launch_s=np.full((workloads, 1), 0.1) * speed[type_of],
        weights=weights / weights.sum(),
        group_of=np.arange(items) // group_size,
        type_of=type_of,
        equal_counts=equal_counts,
        **rules,
    )


@st.composite
def layers(draw: st.DrawFn, max_items: int = 6, max_devices: int = 3) -> LayerProblem:
    group_size = draw(st.sampled_from([1, 2, 3]))
    groups = draw(st.integers(1, max(1, max_items // group_size)))
    devices = draw(st.integers(1, max_devices))
    return make_layer(
        groups * group_size,
        group_size,
        devices,
        seed=draw(st.integers(0, 10_000)),
        types=draw(st.sampled_from([1, 1, 2])),
        equal_counts=draw(st.booleans()),
        charge=draw(st.sampled_from([0.0, 0.05, 0.5, 5.0])),
        two_valued=draw(st.booleans()),
        workloads=draw(st.sampled_from([1, 1, 2, 3])),
    )


def alike(layer: LayerProblem) -> list[LayerProblem]:
    """The layer, and others of the same problem: of other costs, of groups that cost nothing."""
    return [
        layer,
        replace(layer, item_s=3.1 * layer.item_s, part_s=0.7 * layer.part_s),
        replace(layer, item_s=np.sqrt(layer.item_s), group_s=0.0 * layer.group_s),
    ]


def started(layer: LayerProblem, assignment: Assignment) -> LayerSolution:
    """A placement of which nothing is proved yet."""
    return LayerSolution(layer.whole(assignment), layer.makespan(assignment), Bound(0.0, "none"))


def soon(seconds: float = 30) -> Deadline:
    """A deadline some seconds from now."""
    return Deadline(time.monotonic() + seconds, Event())


def brute_force(layer: LayerProblem) -> float:
    """The optimal makespan, by trying every assignment."""
    best = np.inf
    for choice in product(range(layer.devices), repeat=layer.items):
        assignment: Assignment = np.array(choice, dtype=np.int64)
        if layer.allows(assignment):
            best = min(best, layer.makespan(assignment))
    return float(best)


def make_problem(
    layer_count: int,
    heads: int,
    kv_heads: int,
    devices: int,
    *,
    seed: int = 0,
    charge: float = 0.2,
    **rules: Any,
) -> PlacementProblem:
    """Several layers of log-normal head costs on identical devices."""
    rng = np.random.default_rng(seed)
    head_s = rng.lognormal(0, 1, (1, layer_count, heads, 1))
    return PlacementProblem(
        head_s=head_s,
        part_s=np.zeros_like(head_s),
        group_s=np.full((1, layer_count, kv_heads, 1), charge),
        launch_s=np.full((1, 1), 0.05),
        weights=np.ones(1),
        type_of=np.zeros(devices, dtype=np.int64),
        **rules,
    )
