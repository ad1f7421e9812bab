"""`place`: from nothing but costs, never worse than EPLB's packing; bad input is named."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from solver.placement import CostsError, Placement, place
from solver.problem import PlacementProblem
from solver.shares import Floats
from tests.solver.optimum import optimum

CASE = Path(__file__).resolve().parents[2] / "../shared/cases/partition-two-jobs-a-machine.json"
AT_ONCE = 1e-3
"""Seconds that are over before any search: what must hold holds of the quick starts already."""


def largest_loads(costs: Floats, device_of: np.ndarray, devices: int) -> list[float]:
    """Every layer's largest load, added up in plain loops."""
    found = []
    for of_layer, placed in zip(costs.tolist(), device_of.tolist(), strict=True):
        loads = [0.0] * devices
        for cost, device in zip(of_layer, placed, strict=True):
            loads[device] += cost
        found.append(max(loads))
    return found


def check(costs: Floats, devices: int, found: Placement) -> None:
    """That a placement is what it says."""
    assert found.shares.shape == (*costs.shape, devices)
    assert (found.shares >= 0).all()
    assert found.shares.sum(axis=2) == pytest.approx(np.ones(costs.shape))
    loads = np.einsum("lhd,lh->ld", found.shares, costs)
    assert found.loads_s == pytest.approx(loads)
    assert found.makespan_s == pytest.approx(loads.max(axis=1).sum())
    assert found.lower_bound_s <= found.makespan_s * (1 + 1e-12)
    assert found.gap == pytest.approx(1 - found.lower_bound_s / found.makespan_s, abs=1e-12)
    assert len(found.proofs) == len(costs)


def balanced_packing(costs: Floats, devices: int) -> list[list[int]]:
    """deepseek-ai/EPLB's `balanced_packing`: the heaviest first on the lightest pack with room."""
    places = costs.shape[1] // devices
    packed = []
    for weights in costs:
        weight, number = [0.0] * devices, [0] * devices
        pack_of = [-1] * len(weights)
        for item in np.argsort(-weights, kind="stable").tolist():
            open_ = [pack for pack in range(devices) if number[pack] < places]
            pack = min(open_, key=weight.__getitem__)
            pack_of[item] = pack
            weight[pack] += float(weights[item])
            number[pack] += 1
        packed.append(pack_of)
    return packed


@examples(max_examples=40)
@given(
    st.integers(1, 4),
    st.integers(1, 8),
    st.integers(1, 6),
    st.sampled_from(["lognormal", "integers", "two values"]),
    st.integers(0, 100_000),
)
def test_never_a_larger_makespan_than_eplb_where_counts_are_equal(
    layers: int, devices: int, places: int, kind: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    shape = (layers, devices * places)
    costs = {
        "lognormal": lambda: random.lognormal(0, 1, shape),
        "integers": lambda: random.integers(1, 20, shape).astype(float),
        "two values": lambda: random.choice([1.0, 12.0], shape),
    }[kind]()
    found = place(costs, devices, equal_counts=True, time_limit_s=AT_ONCE)
    check(costs, devices, found)
    counts = [np.bincount(row, minlength=devices).tolist() for row in found.device_of_head]
    assert counts == [[places] * devices] * layers
    ours = found.loads_s.max(axis=1)
    theirs = largest_loads(costs, np.array(balanced_packing(costs, devices)), devices)
    assert (ours <= np.array(theirs) * (1 + 1e-12)).all()


def test_with_time_it_is_better_than_eplb() -> None:
    costs = np.random.default_rng(0).lognormal(0, 0.5, (8, 32))
    found = place(costs, 8, equal_counts=True, time_limit_s=20, tolerance=0.02)
    theirs = sum(largest_loads(costs, np.array(balanced_packing(costs, 8)), 8))
    assert found.makespan_s < 0.985 * theirs


@examples(max_examples=25)
@given(
    st.integers(1, 2),
    st.integers(2, 7),
    st.integers(2, 3),
    st.booleans(),
    st.integers(0, 100_000),
)
def test_whole_numbers_are_proved_exactly(
    layers: int, heads: int, devices: int, equal_counts: bool, seed: int
) -> None:
    costs = np.random.default_rng(seed).integers(1, 40, (layers, heads))
    found = place(costs, devices, equal_counts=equal_counts, tolerance=0.0, time_limit_s=60)
    check(costs.astype(float), devices, found)
    assert found.lower_bound_s == found.makespan_s == round(found.makespan_s)
    assert found.gap == 0
    assert found.reason is None
    problem = PlacementProblem(
        head_s=costs[None, ..., None].astype(float),
        part_s=np.zeros((1, layers, heads, 1)),
        group_s=np.zeros((1, layers, heads, 1)),
        launch_s=np.zeros((1, 1)),
        weights=np.ones(1),
        type_of=np.zeros(devices, dtype=np.int64),
        equal_counts=equal_counts,
    )
    assert found.makespan_s == round(optimum(problem))


@pytest.mark.parametrize("max_copies", [None, 2])
def test_divided_heads_reach_the_mean_or_the_copies_allowed(max_copies: int | None) -> None:
    costs = np.random.default_rng(1).lognormal(0, 1, (3, 16))
    found = place(costs, 4, divisible=True, max_copies=max_copies, time_limit_s=20)
    check(costs, 4, found)
    assert ((found.shares > 0).sum(axis=2) <= (max_copies or 4)).all()
    mean = costs.sum(axis=1) / 4
    assert found.makespan_s <= max(mean.sum(), costs.max(axis=1).sum() / (max_copies or 4)) * 1.002


def test_on_thousands_of_devices_there_are_only_the_parts_that_wrapping_makes() -> None:
    costs = np.random.default_rng(2).lognormal(0, 1, (2, 512))
    found = place(costs, 4096, divisible=True, time_limit_s=60)
    assert found.gap <= 1e-6
    assert found.makespan_s == pytest.approx(costs.sum() / 4096, rel=1e-6)
    assert all(len(own.item) <= 512 + 4096 - 1 for own in found.placed)
    check(costs, 4096, found)


def test_one_layer_may_be_a_list() -> None:
    found = place([3, 3, 2, 2, 2], devices=2)
    assert found.shares.shape == (1, 5, 2)
    assert (found.makespan_s, found.lower_bound_s, found.gap) == (6, 6, 0)
    assert sorted(np.bincount(found.device_of_head[0]).tolist()) == [2, 3]


def test_a_method_is_taken_at_its_word() -> None:
    assert place([3, 3, 2, 2, 2], devices=2, method="greedy").makespan_s == 7
    assert place([3, 3, 2, 2, 2], devices=2, method="snake").device_of_head.tolist() == [
        [0, 1, 1, 0, 0]
    ]


def test_a_search_cut_short_says_why() -> None:
    costs = np.random.default_rng(2).lognormal(0, 1, (16, 64))
    found = place(costs, 8, tolerance=0.0, time_limit_s=AT_ONCE)
    check(costs, 8, found)
    assert found.reason is not None
    assert "not proved within the tolerance" in found.reason


def test_a_seed_makes_it_repeatable() -> None:
    costs = np.random.default_rng(3).lognormal(0, 1, (2, 24))
    one, other = (place(costs, 4, tolerance=1e-4, seed=7, time_limit_s=20) for _ in range(2))
    assert "by the clock" not in (one.reason or "")
    assert (one.shares == other.shares).all()
    assert one.lower_bound_s == other.lower_bound_s


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        (np.ones((2, 3, 4)), r"costs: must be \[layers, heads\], not of shape \[2, 3, 4\]"),
        (np.ones((0, 8)), r"costs: must be \[layers, heads\], not of shape \[0, 8\]"),
        (np.ones((2, 0)), r"not of shape \[2, 0\]"),
        ([], r"not of shape \[1, 0\]"),
        ([[1, 2], [3]], "costs: must be numbers"),
        (["a"], "costs: must be numbers"),
        (None, "costs: layer 0, head 0: nan"),
        ([[1, 2], [3, float("nan")]], "costs: layer 1, head 1: nan, must be finite"),
        ([[1, float("inf")]], "costs: layer 0, head 1: inf, must be finite"),
        ([[1, 2], [-3, 1]], "costs: layer 1, head 0: -3.0, must be finite and at least 0"),
        ([[1, 2], [0, 0]], "costs: layer 1: every head costs 0"),
    ],
)
def test_bad_costs_are_named_with_their_fault(costs: Any, words: str) -> None:
    with pytest.raises(CostsError, match=words):
        place(costs, 2)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"devices": 0}, "devices: 0, must be a whole number from 1 to 4096"),
        ({"devices": -1}, "devices: -1"),
        ({"devices": 4097}, "devices: 4097"),
        ({"devices": 2.5}, "devices: 2.5"),
        ({"devices": True}, "devices: True"),
        ({"devices": "8"}, "devices: '8'"),
        ({"divisible": True, "equal_counts": True}, "divisible: .*equal_counts"),
        ({"divisible": True, "method": "ilp"}, "method: 'ilp' cannot divide heads"),
        ({"max_copies": 2}, "max_copies: is for divisible placements"),
        ({"divisible": True, "max_copies": 0}, "max_copies: 0"),
        ({"method": "magic"}, "method: 'magic', must be one of auto, contiguous"),
        ({"time_limit_s": 0}, "time_limit_s: 0"),
        ({"time_limit_s": float("nan")}, "time_limit_s: nan"),
        ({"tolerance": 1}, "tolerance: 1"),
        ({"tolerance": -0.1}, "tolerance: -0.1"),
    ],
)
def test_bad_options_are_named_with_their_fault(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(CostsError, match=words):
        place(np.ones((1, 4)), **{"devices": 2, **fields})


def longest_first(jobs: list[int], machines: int) -> int:
    """Graham 1969."""
    loads = [0] * machines
    for job in sorted(jobs, reverse=True):
        loads[loads.index(min(loads))] += job
    return max(loads)


def first_fit(jobs: list[int], machines: int) -> int:
    """MULTIFIT's answer: the least whole makespan, by halving, that first-fit decreasing meets."""

    def fits(within: int) -> bool:
        loads = [0] * machines
        for job in sorted(jobs, reverse=True):
            roomy = (m for m, load in enumerate(loads) if load + job <= within)
            machine = next(roomy, None)
            if machine is None:
                return False
            loads[machine] += job
        return True

    low, high = max(max(jobs), math.ceil(sum(jobs) / machines)), longest_first(jobs, machines)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return high


def jobs_of_case() -> tuple[list[int], int]:
    if not CASE.exists():
        pytest.skip(f"{CASE} is not on this machine")
    [case] = json.loads(CASE.read_text()).values()
    return case["jobs"], case["machines"]


def few_jobs(seed: int) -> tuple[list[int], int]:
    """Two to four and a half jobs a machine, as drawn in Lawrinenko's hardest class."""
    random = np.random.default_rng(seed)
    machines = int(random.integers(10, 40))
    jobs = random.integers(200, 801, int(random.uniform(2, 4.5) * machines))
    return jobs.tolist(), machines


@pytest.mark.parametrize(
    "instance", [jobs_of_case, *(lambda seed=seed: few_jobs(seed) for seed in range(20))]
)
@pytest.mark.parametrize("heuristic", [longest_first, first_fit])
def test_few_jobs_a_machine_are_never_worse_than_by_a_classic_heuristic(
    instance: Callable[[], tuple[list[int], int]], heuristic: Callable[[list[int], int], int]
) -> None:
    jobs, machines = instance()
    found = place(jobs, machines, time_limit_s=AT_ONCE)
    assert found.makespan_s <= heuristic(jobs, machines)
