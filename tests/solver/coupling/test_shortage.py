"""Shortages are proofs: none where trying everything finds room."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.coupling.shortage import MemoryShortageError, check_memory, shortage
from tests.solver.coupling.cases import (
    best_within,
    footprints,
    make_footprint,
    make_problem,
    problems,
    some_totals,
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_proof_fires_where_something_fits(data: st.DataObject) -> None:
    problem = data.draw(problems())
    footprint = data.draw(footprints(problem))
    # Limits of a placement that there is, a byte less, and somewhat less: near where proofs end.
    totals = some_totals(problem, footprint, data.draw(st.integers(0, 1000)))
    less = data.draw(st.sampled_from([0.0, 1.0, 0.1 * totals.max(), 0.3 * totals.max()]))
    limits = np.maximum(totals - less, 1).astype(np.int64)
    if best_within(problem, footprint, limits.astype(float)) is not None:
        assert shortage(problem, footprint, limits) is None
    else:
        assert less > 0


def test_proofs_fire_at_the_last_byte() -> None:
    problem = make_problem(2)
    footprint = make_footprint(problem)
    unit = 32 * 4
    exact = np.array([3 * unit, unit])
    assert shortage(problem, footprint, exact) is None
    assert shortage(problem, footprint, exact - [0, 1]) is not None


def test_total_names_the_bytes() -> None:
    problem = make_problem(2)
    footprint = make_footprint(problem, deployment="tensor_parallel")
    needed = 4 * 32 * 4 + 2 * (4 + 2) * 8
    with pytest.raises(MemoryShortageError, match="100 bytes short") as error:
        check_memory(problem, footprint, np.array([needed - 150, 50]))
    assert (error.value.needed_bytes, error.value.available_bytes) == (needed, needed - 100)
    assert error.value.devices == [0, 1]
    assert f"{4 * 32 * 4} bytes of K/V and 96 of weights" in str(error.value)


def test_units_do_not_fit_in_pieces() -> None:
    problem = make_problem(1, types=(0, 0, 0))
    footprint = make_footprint(problem)
    short = shortage(problem, footprint, np.full(3, 127))
    assert short is not None
    assert (short.needed_bytes, short.available_bytes) == (2 * 128, 0)
    assert short.devices_wanted == "devices that may hold 128 bytes"


def test_a_large_budget_is_a_large_unit() -> None:
    problem = make_problem(1, types=(0, 0))
    footprint = make_footprint(problem, budgets=np.array([[4, 32, 4, 32]]), retention="budget")
    assert shortage(problem, footprint, np.array([250, 6])) is not None
    assert shortage(problem, footprint, np.array([256, 0])) is None


def test_equal_counts_fill_the_smallest_device() -> None:
    problem = make_problem(1, types=(0, 1), equal_counts=True)
    footprint = make_footprint(problem)
    short = shortage(problem, footprint, np.array([1000, 100]))
    assert short is not None
    assert (short.devices, short.needed_bytes) == ([1], 128)
    free = make_problem(1, types=(0, 1))
    assert shortage(free, footprint, np.array([1000, 100])) is None


def test_what_would_help_does() -> None:
    problem = make_problem(2)
    budgets = np.full((2, 4), 8)
    footprint = make_footprint(problem, budgets=budgets, batch_size=8)
    limits = np.full(2, 512)
    with pytest.raises(MemoryShortageError) as error:
        check_memory(problem, footprint, limits)
    message = str(error.value)
    assert "devices that may hold 1024 bytes" in message
    assert 'kv_retention "budget"' in message
    batch = re.search(r"batch_size of at most (\d+)", message)
    context = re.search(r"context_tokens of at most (\d+)", message)
    assert batch is not None
    assert context is not None
    assert shortage(problem, make_footprint(problem, batch_size=int(batch[1])), limits) is None
    assert shortage(problem, make_footprint(problem, batch_size=int(batch[1]) + 1), limits)
    fits = make_footprint(problem, batch_size=8, context_tokens=int(context[1]))
    assert shortage(problem, fits, limits) is None


def test_as_many_devices_as_are_wanted_are_enough() -> None:
    problem = make_problem(2)
    footprint = make_footprint(problem, batch_size=8)
    limit = 1500  # a group of 1,024 bytes fits, a second one does not
    with pytest.raises(MemoryShortageError) as error:
        check_memory(problem, footprint, np.full(2, limit))
    wanted = re.search(r"at least (\d+) more devices", str(error.value))
    assert wanted is not None
    types = np.zeros(2 + int(wanted[1]), dtype=np.int64)
    larger = replace(problem, type_of=types)
    assert shortage(larger, footprint, np.full(len(types), limit)) is None


def test_nothing_wraps_around_at_absurd_sizes() -> None:
    problem = make_problem(2)
    footprint = make_footprint(problem, context_tokens=16 * 2**20, batch_size=2**45)
    with pytest.raises(MemoryShortageError):
        check_memory(problem, footprint, np.full(2, 2**50))
