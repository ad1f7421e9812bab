"""Random placements in whole rows, each fact counted row by row or by the solver's own arrays."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiles.architecture import Architecture
from solver.plans import Rules
from solver.problem import PlacementProblem
from solver.shares import Floats, Shares

BLOCK = 64
Parts = list[tuple[int, float]]
"""A head's (device, share) entries, in the order of their rows."""


@dataclass(frozen=True)
class Served:
    """A workload to make a plan for."""

    context_tokens: int = 2560
    phase: str = "prefill"
    batch_size: int = 1
    weight: float = 1.0
    piece_tokens: int = BLOCK

    def row_pieces(self, budget_tokens: int) -> list[int]:
        """Pieces of every row of a head, counted one by one."""
        every = range(-(-self.context_tokens // self.piece_tokens))
        pieces = every[: -(-budget_tokens // self.piece_tokens)]
        if self.phase == "decode":
            return [1 for _ in range(self.batch_size) for _ in pieces]
        own = BLOCK // self.piece_tokens
        lists = []
        for row in range(-(-self.context_tokens // BLOCK)):
            seen = every[: (row + 1) * own]
            lists.append(len(seen[: max(len(pieces), own)]))
        return lists

    def realised(self, parts: Parts, budget_tokens: int) -> Parts:
        """The parts in the nearest whole rows, found by trying them all."""
        pieces = self.row_pieces(budget_tokens)
        done = [sum(pieces[:row]) for row in range(len(pieces) + 1)]
        sums = np.cumsum([share for _, share in parts]).tolist()
        ends = [_nearest(done, share * done[-1]) for share in sums[:-1]] + [len(pieces)]
        starts = [0, *ends[:-1]]
        return [
            (device, done[end] / done[-1] - done[start] / done[-1])
            for (device, _), start, end in zip(parts, starts, ends, strict=True)
        ]


def _nearest(done: list[int], wanted: float) -> int:
    return min(range(len(done)), key=lambda row: (abs(wanted - done[row]), -row))


def random_budgets(rng: random.Random, one: Served, layers: int, heads: int) -> list[list[int]]:
    """Whole pieces, or the context."""
    size = one.piece_tokens
    most = -(-one.context_tokens // size)
    return [
        [min(rng.randint(1, most) * size, one.context_tokens) for _ in range(heads)]
        for _ in range(layers)
    ]


def random_problem(
    rng: random.Random,
    shape: Architecture,
    types: Sequence[str],
    served: Sequence[Served],
    rules: Rules,
) -> PlacementProblem:
    """Costs of every size, in no relation to the budgets."""
    names, draw = list(dict.fromkeys(types)), np.random.default_rng(rng.getrandbits(32))
    axes = (len(served), shape.layers)
    head_s = draw.uniform(1e-4, 1e-2, (*axes, shape.query_heads, len(names)))
    priced = rules.copies == "priced"
    return PlacementProblem(
        head_s=head_s,
        part_s=head_s * draw.uniform(0, 1, head_s.shape) * (priced and rules.divisible),
        group_s=draw.uniform(1e-5, 1e-3, (*axes, shape.kv_heads, len(names))) * priced,
        launch_s=draw.uniform(1e-5, 1e-4, (len(served), len(names))),
        weights=np.array([one.weight for one in served]),
        type_of=np.array([names.index(name) for name in types]),
        unit=rules.unit,
    )


def random_parts(
    rng: random.Random,
    first: Served,
    budgets: list[int],
    shape: Architecture,
    devices: int,
    rules: Rules,
) -> list[Parts]:
    """One layer's entries, as the rules allow, `[heads]`."""
    copies = devices // shape.kv_heads
    copied = copies * shape.kv_heads == devices and shape.group_size % copies == 0
    if rules.unit == "kv_group" and copied and copies > 1:
        return _copied(rng, shape, copies)
    if rules.unit == "kv_group":
        of_group = _dealt(rng, shape.kv_heads, devices, rules.equal_counts)
        return [[(of_group[shape.kv_head(head)], 1.0)] for head in range(shape.query_heads)]
    if not rules.divisible:
        of_head = _dealt(rng, shape.query_heads, devices, rules.equal_counts)
        return [[(device, 1.0)] for device in of_head]
    most = min(rules.max_copies or devices, devices)
    return [_divided(rng, first.row_pieces(budget), most, devices) for budget in budgets]


def _copied(rng: random.Random, shape: Architecture, copies: int) -> list[Parts]:
    """Every group on `copies` devices of its own, each with as many of its heads."""
    order = rng.sample(range(shape.kv_heads * copies), shape.kv_heads * copies)
    parts: list[Parts] = []
    for group in range(shape.kv_heads):
        own = order[group * copies : (group + 1) * copies] * (shape.group_size // copies)
        rng.shuffle(own)
        parts += [[(device, 1.0)] for device in own]
    return parts


def _dealt(rng: random.Random, items: int, devices: int, equal: bool) -> list[int]:
    dealt = [item % devices if equal else rng.randrange(devices) for item in range(items)]
    rng.shuffle(dealt)
    return dealt


def _divided(rng: random.Random, pieces: list[int], most: int, devices: int) -> Parts:
    parts = rng.randint(1, min(most, len(pieces)))
    edges = [0, *sorted(rng.sample(range(1, len(pieces)), parts - 1)), len(pieces)]
    used = rng.sample(range(devices), parts)
    return [
        (device, sum(pieces[start:end]) / sum(pieces))
        for device, start, end in zip(used, edges, edges[1:], strict=False)
    ]


def loads_of(
    problem: PlacementProblem,
    served: Sequence[Served],
    budgets: list[list[list[int]]],
    parts: list[list[Parts]],
) -> Floats:
    """Seconds, `[layers, workloads, devices]`, each workload rounding the shares to its rows."""
    loads, by_head = [], problem.by_head()
    for index, heads in enumerate(parts):
        dense = np.zeros((len(served), len(heads), problem.devices))
        for w, one in enumerate(served):
            for head, entries in enumerate(heads):
                for device, share in one.realised(entries, budgets[w][index][head]):
                    dense[w, head, device] = share
        loads.append(by_head.layer(index).loads_of_each(list(map(Shares.of, dense))))
    return np.array(loads)


def mean_bounds(problem: PlacementProblem) -> Floats:
    """The weighted mean load, everything where it takes least, `[layers]`."""
    work = problem.head_s.min(axis=3).sum(axis=2) + problem.group_s.min(axis=3).sum(axis=2)
    each = problem.launch_s.min(axis=1, keepdims=True) + work / problem.devices
    return np.asarray(problem.weights @ each)
