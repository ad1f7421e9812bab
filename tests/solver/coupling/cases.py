"""Small placement problems with footprints, and what trying everything says of them."""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from hypothesis import strategies as st

from profiles.architecture import Architecture
from solver.coupling.footprint import Footprint
from solver.problem import PlacementProblem
from solver.shares import Floats, Shares
from solver.solution import Bound, LayerSolution


def make_problem(
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    types: tuple[int, ...] = (0, 0),
    *,
    seed: int = 0,
    charge: float = 0.01,
    workloads: int = 1,
    **rules: object,
) -> PlacementProblem:
    """Log-normal heads; device types differ by a factor; `rules` as in PlacementProblem."""
    rng = np.random.default_rng(seed)
    speed = np.array([1.0, 1.6, 2.2])[: max(types) + 1]
    head_s = rng.lognormal(0, 1, (workloads, layers, heads))[..., None] * speed
    return PlacementProblem(
        head_s=head_s,
        part_s=0.1 * head_s,
        group_s=np.full((workloads, layers, kv_heads, 1), charge) * speed,
        launch_s=np.full((workloads, 1), 0.05) * speed,
        weights=np.full(workloads, 1 / workloads),
        type_of=np.array(types, dtype=np.int64),
        **rules,  # type: ignore[arg-type]
    )


def make_footprint(problem: PlacementProblem, *, seed: int = 0, **fields: object) -> Footprint:
    """Heads of 1 x 1: a token takes 4 bytes a group and sequence, a head's two projections 8."""
    rng = np.random.default_rng(seed)
    shape = Architecture(
        layers=problem.layers,
        query_heads=problem.heads,
        kv_heads=problem.kv_heads,
        head_dim=1,
        hidden_size=2,
    )
    defaults = {
        "deployment": "disaggregated",
        "budgets": rng.integers(1, 9, (problem.layers, problem.heads)) * 4,
        "context_tokens": 32,
        "batch_size": 1,
        "retention": "full",
        "piece_tokens": 4,
    }
    return Footprint(architecture=shape, **{**defaults, **fields})  # type: ignore[arg-type]


def solution(problem: PlacementProblem, index: int, shares: Shares) -> LayerSolution:
    """A layer's shares with their true makespan, under a bound that says nothing."""
    layer = problem.layer(index)
    return LayerSolution(shares, layer.objective(layer.loads_of_shares(shares)), Bound(0.0, "none"))


def placements(problem: PlacementProblem, index: int) -> Iterator[LayerSolution]:
    """Every placement of whole items that the rules allow."""
    layer = problem.layer(index)
    for choice in product(range(layer.devices), repeat=layer.items):
        assignment = np.array(choice, dtype=np.int64)
        if layer.allows(assignment):
            yield solution(problem, index, layer.whole(assignment))


def quickest(problem: PlacementProblem) -> list[LayerSolution]:
    """The best of all placements of every layer, by trying them: also a `solve_again`."""
    return [
        min(placements(problem, index), key=lambda s: s.makespan_s)
        for index in range(problem.layers)
    ]


def held(problem: PlacementProblem, footprint: Footprint, index: int, shares: Shares) -> Floats:
    """Bytes of one layer, counted head by head, `[devices]`."""
    by_head, size = problem.shares_of_heads(shares), problem.heads // problem.kv_heads
    total = np.zeros(problem.devices)
    for device in range(problem.devices):
        for group in range(problem.kv_heads):
            members = range(group * size, (group + 1) * size)
            present = [h for h in members if by_head.dense[h, device]]
            if present:
                kept = [footprint.kept_tokens[index].ravel()[h] for h in present]
                total[device] += max(kept) * footprint.token_bytes
                total[device] += (len(present) + 1) * footprint.projection_bytes
    return total


def some_totals(problem: PlacementProblem, footprint: Footprint, seed: int) -> Floats:
    """Bytes that some placement of all layers holds, `[devices]`: limits at which proofs end."""
    rng = np.random.default_rng(seed)
    totals = np.zeros(problem.devices)
    for index in range(problem.layers):
        found = list(placements(problem, index))
        totals += held(problem, footprint, index, found[rng.integers(len(found))].shares)
    return totals


def best_within(problem: PlacementProblem, footprint: Footprint, limits: Floats) -> float | None:
    """The least plan makespan within the limits, by trying everything; None if nothing fits."""
    fronts = []
    for index in range(problem.layers):
        options: dict[bytes, tuple[float, Floats]] = {}
        for found in placements(problem, index):
            bytes_held = footprint.held_bytes(index, problem.shares_of_heads(found.shares))
            known = options.get(bytes_held.tobytes())
            if known is None or found.makespan_s < known[0]:
                options[bytes_held.tobytes()] = (found.makespan_s, bytes_held)
        fronts.append(list(options.values()))
    fitting = [
        sum(makespan_s for makespan_s, _ in choice)
        for choice in product(*fronts)
        if (sum(bytes_held for _, bytes_held in choice) <= limits).all()
    ]
    return min(fitting, default=None)


def kv_bytes(
    problem: PlacementProblem, footprint: Footprint, layers: Sequence[LayerSolution]
) -> Floats:
    """K/V of every device over all layers, `[devices]`."""
    shares = [problem.shares_of_heads(layer.shares) for layer in layers]
    return np.sum([footprint.kv_bytes(i, s) for i, s in enumerate(shares)], axis=0)


@st.composite
def problems(draw: st.DrawFn, layers: int = 2) -> PlacementProblem:
    """At most 2 layers of 4 heads on 3 devices: 81 placements a layer."""
    return make_problem(
        draw(st.integers(1, layers)),
        4,
        draw(st.sampled_from([1, 2, 4])),
        draw(st.sampled_from([(0, 0), (0, 1), (0, 0, 0), (0, 0, 1)])),
        seed=draw(st.integers(0, 10_000)),
        unit=draw(st.sampled_from(["head", "kv_group"])),
        equal_counts=draw(st.booleans()),
    )


@st.composite
def footprints(draw: st.DrawFn, problem: PlacementProblem) -> Footprint:
    return make_footprint(
        problem,
        seed=draw(st.integers(0, 10_000)),
        deployment=draw(st.sampled_from(["disaggregated", "tensor_parallel"])),
        retention=draw(st.sampled_from(["full", "budget"])),
    )
