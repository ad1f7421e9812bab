"""Random divisible layers, and what their shares must be."""

import numpy as np
from hypothesis import strategies as st

from solver.divide.divided_bounds import divided_bound
from solver.divide.wrap_around import blend
from solver.problem import LayerProblem
from solver.shares import Shares


def make_divisible(
    items: int,
    group_size: int,
    devices: int,
    *,
    seed: int = 0,
    types: int = 1,
    workloads: int = 1,
    charge: float = 0.3,
    part: float = 0.0,
    launch: float = 0.1,
    max_copies: int | None = None,
) -> LayerProblem:
    """Log-normal heads in groups of `group_size`; other types and workloads differ by factors.

    `part` is the share of a head's seconds that every part of it repeats.
    """
    rng = np.random.default_rng(seed)
    cost = rng.lognormal(0, 1, (workloads, items))
    speed = rng.uniform(0.5, 2.0, (workloads, types))
    speed[0, 0] = 1.0
    type_of = np.sort(rng.integers(0, types, devices))
    on = speed[:, type_of]
    item_s = cost[:, :, None] * on[:, None, :]
    weights = rng.uniform(0.5, 1.5, workloads)
    return LayerProblem(
        item_s=item_s,
        part_s=part * item_s,
        group_s=np.full((workloads, items // group_size, devices), charge) * on[:, None, :],
        launch_s=launch * on,
        weights=weights / weights.sum(),
        group_of=np.arange(items, dtype=np.int64) // group_size,
        type_of=type_of,
        divisible=True,
        max_copies=max_copies,
    )


@st.composite
def divisible_layers(
    draw: st.DrawFn, *, max_items: int = 8, max_devices: int = 4, types: int = 2, workloads: int = 2
) -> LayerProblem:
    group_size = draw(st.sampled_from([size for size in (1, 2, 4) if size <= max_items]))
    groups = draw(st.integers(1, max_items // group_size))
    return make_divisible(
        groups * group_size,
        group_size,
        draw(st.integers(1, max_devices)),
        seed=draw(st.integers(0, 10_000)),
        types=draw(st.integers(1, types)),
        workloads=draw(st.integers(1, workloads)),
        charge=draw(st.sampled_from([0.0, 0.05, 0.5, 5.0])),
        part=draw(st.sampled_from([0.0, 0.0, 0.1, 1.0])),
        launch=draw(st.sampled_from([0.0, 0.1])),
        max_copies=draw(st.sampled_from([None, None, 1, 2, 3])),
    )


def reached_s(layer: LayerProblem, shares: Shares) -> float:
    return layer.objective(layer.loads_of_shares(shares))


def least_s(layer: LayerProblem) -> float:
    """What is proved of the weighted seconds alone."""
    return divided_bound(blend(layer)).seconds


def check(layer: LayerProblem, shares: Shares) -> None:
    """Whole heads, nothing negative, no more copies than allowed."""
    np.testing.assert_allclose(shares.dense.sum(axis=1), 1, rtol=1e-9)
    assert (shares.share > 0).all()
    if layer.max_copies is not None:
        assert shares.parts.max() <= layer.max_copies
