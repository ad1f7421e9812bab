"""A step of thinning costs the seconds and saves the bytes it claims."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.coupling.thin import thinned
from solver.shares import Shares
from tests.solver.coupling.cases import make_footprint, make_problem, quickest, solution
from tests.solver.problems import soon


def random_shares(seed: int, heads: int, devices: int) -> Shares:
    rng = np.random.default_rng(seed)
    shares = rng.random((heads, devices)) * rng.integers(0, 2, (heads, devices))
    shares[shares.sum(axis=1) == 0, 0] = 1
    return Shares.of(shares / shares.sum(axis=1, keepdims=True))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([(0, 0), (0, 0, 1), (0, 1, 1, 2)]),
    st.sampled_from(["full", "budget"]),
)
def test_every_step_saves_bytes_until_no_group_is_split(
    seed: int, types: tuple[int, ...], retention: str
) -> None:
    problem = make_problem(1, 6, 3, types, seed=seed, workloads=2, divisible=True)
    footprint = make_footprint(
        problem, seed=seed, retention=retention, deployment="tensor_parallel"
    )
    start = random_shares(seed, 6, len(types))
    path = thinned(problem, footprint, 0, start, np.ones(len(types)), soon())
    sizes = [footprint.held_bytes(0, shares).sum() for shares in [start, *path]]
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[-1] == footprint.group_bytes[0].sum()
    for shares in path:
        np.testing.assert_allclose(shares.dense.sum(axis=1), 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_first_step_is_the_cheapest_per_byte(seed: int) -> None:
    problem = make_problem(1, 6, 3, (0, 0, 1), seed=seed, divisible=True)
    footprint = make_footprint(problem)
    start = random_shares(seed, 6, 3)
    before_s = solution(problem, 0, start).makespan_s
    path = thinned(problem, footprint, 0, start, np.ones(3), soon())
    if not path:
        return
    costs_s = []
    for group in range(3):
        members = problem.group_of_head == group
        holders = np.flatnonzero((start.dense[members] > 0).any(axis=0))
        for giver in holders:
            for taker in set(holders) - {giver}:
                tried = start.dense.copy()
                tried[members, taker] += tried[members, giver]
                tried[members, giver] = 0
                costs_s.append(max(solution(problem, 0, Shares.of(tried)).makespan_s - before_s, 0))
    taken_s = max(solution(problem, 0, path[0]).makespan_s - before_s, 0)
    # Every copy is as many bytes here; a little may go to crowding.
    assert taken_s <= min(costs_s) + 0.02 * before_s


def test_only_scarce_devices_are_emptied() -> None:
    problem = make_problem(1, 4, 2, (0, 1), unit="kv_group")
    footprint = make_footprint(problem)
    start = Shares.of(np.array([[0.0, 1.0], [0.0, 1.0]]))
    path = thinned(problem, footprint, 0, start, np.array([0.0, 1.0]), soon())
    assert [shares.amounts()[1] for shares in path] == [1, 0]


def test_equal_counts_are_left_alone() -> None:
    problem = make_problem(1, equal_counts=True)
    start = quickest(problem)[0].shares
    assert thinned(problem, make_footprint(problem), 0, start, np.ones(2), soon()) == []
