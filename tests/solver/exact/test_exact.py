"""CP-SAT and the integer program: optimal on small problems, honest under a deadline."""

import os
import time
from pathlib import Path
from threading import Event, Timer

import numpy as np
import pytest
from hypothesis import given, settings

from solver.deadline import Deadline, Effort
from solver.exact.cp_sat import cp_sat
from solver.exact.ilp import ilp, write_lp
from solver.exact.symmetry import canonical, reachable
from solver.heuristics.contiguous import contiguous
from solver.heuristics.greedy import greedy
from solver.problem import LayerProblem
from solver.solution import LayerSolution
from tests.solver.problems import brute_force, layers, make_layer, soon, started

TOLERANCE = 1e-3


@settings(max_examples=40, deadline=None)
@given(layers())
def test_symmetry_breaking_keeps_every_placement_up_to_names(layer: LayerProblem) -> None:
    start = greedy(layer)
    renamed = canonical(layer, start)
    assert reachable(layer)[np.arange(layer.items), renamed].all()
    assert layer.makespan(renamed) == pytest.approx(layer.makespan(start))
    assert layer.allows(renamed)


@settings(max_examples=30, deadline=None)
@given(layers())
def test_cp_sat_reaches_the_optimum_and_its_bound_holds(layer: LayerProblem) -> None:
    optimum = brute_force(layer)
    told: list[LayerSolution] = []
    start = started(layer, greedy(layer))
    found = cp_sat(layer, start, TOLERANCE, soon(), Effort(), told.append)
    assert min([start, *told], key=lambda s: s.makespan_s).makespan_s == found.makespan_s
    assert layer.allows(found.assignment)
    assert found.bound.seconds <= optimum * (1 + 1e-9)
    assert layer.makespan(found.assignment) <= optimum * (1 + TOLERANCE)
    assert found.bound.seconds >= optimum * (1 - 2 * TOLERANCE)


@settings(max_examples=10, deadline=None)
@given(layers(max_items=5))
def test_ilp_reaches_the_optimum_and_its_bound_holds(layer: LayerProblem) -> None:
    optimum = brute_force(layer)
    found = ilp(layer, started(layer, greedy(layer)), TOLERANCE, soon())
    assert layer.allows(found.assignment)
    assert layer.makespan(found.assignment) <= optimum * (1 + TOLERANCE)
    assert optimum * (1 - 2 * TOLERANCE) <= found.bound.seconds <= optimum * (1 + 1e-9)


def test_the_ilp_does_not_call_a_time_out_an_optimum() -> None:
    hard = make_layer(64, 8, 8, seed=1, charge=0.4)
    found = ilp(hard, started(hard, contiguous(hard)), 0.0, soon(0.5))
    assert found.bound.seconds == 0.0


def test_cp_sat_stops_when_cancelled() -> None:
    hard = make_layer(128, 8, 8, seed=3, charge=0.4)
    cancelled = Event()
    Timer(0.3, cancelled.set).start()
    began = time.monotonic()
    cp_sat(
        hard,
        started(hard, greedy(hard)),
        0.0,
        Deadline(began + 30, cancelled),
        Effort(),
        lambda _: None,
    )
    assert time.monotonic() - began < 15  # far from the 30 s it was given


def test_the_ilp_stops_when_cancelled_and_leaves_no_process() -> None:
    hard = make_layer(64, 8, 8, seed=1, charge=0.4)
    cancelled = Event()
    Timer(0.5, cancelled.set).start()
    began = time.monotonic()
    found = ilp(hard, started(hard, greedy(hard)), 0.0, Deadline(began + 60, cancelled))
    assert time.monotonic() - began < 30  # half of what it was given
    assert found.bound.seconds == 0.0
    # Others' searches may run on this machine: only this process's own children count.
    own = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    children = [child for path in own for child in path.read_text().split()]
    commands = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
    assert not any(b"hplb-cbc-" in command for command in commands)


def test_the_lp_file_is_complete(tmp_path: Path) -> None:
    layer = make_layer(6, 2, 2)
    write_lp(layer, tmp_path / "layer.lp")
    text = (tmp_path / "layer.lp").read_text()
    assert text.count("x_5_") >= 2
    assert "Minimize" in text
    assert "Binaries" in text
