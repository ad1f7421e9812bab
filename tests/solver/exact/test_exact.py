"""CP-SAT and the integer program: optimal on small problems, honest under a deadline."""

import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

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


class _SetSoon(Event):
    """Set when it has been looked at a few times, whatever there is to do in between."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.mark.parametrize("looks", [0, 10])
def test_cancelled_while_the_program_is_built_neither_goes_on(looks: int) -> None:
    layer = make_layer(128, 1, 64)
    known = started(layer, greedy(layer))
    for method in ("cp_sat", "ilp"):
        cancelled = _SetSoon(looks)
        deadline = Deadline(time.monotonic() + 3600, cancelled)
        if method == "cp_sat":
            found = cp_sat(layer, known, TOLERANCE, deadline, Effort(), lambda _: None)
        else:
            found = ilp(layer, known, TOLERANCE, deadline)
        assert found is known
        assert cancelled.looks == -1, "it ended at the look that saw it"


def test_a_program_too_large_for_cbc_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make_layer(6, 2, 3)
    known = started(layer, greedy(layer))
    monkeypatch.setattr("solver.exact.ilp.MOST_PAIRS", np.count_nonzero(reachable(layer)) - 1)
    assert ilp(layer, known, TOLERANCE, soon()) is known


def test_the_ilp_does_not_call_a_time_out_an_optimum() -> None:
    hard = make_layer(64, 8, 8, seed=1, charge=0.4)
    found = ilp(hard, started(hard, contiguous(hard)), 0.0, soon(0.5))
    assert found.bound.seconds == 0.0


@pytest.mark.timeout(300)
def test_cp_sat_stops_when_cancelled() -> None:
    """As soon as it has told of a placement; else it would go on for an hour."""
    hard = make_layer(128, 8, 8, seed=3, charge=0.4)
    cancelled = Event()
    deadline = Deadline(time.monotonic() + 3600, cancelled)
    start = started(hard, greedy(hard))
    found = cp_sat(hard, start, 0.0, deadline, Effort(), lambda _: cancelled.set())
    assert cancelled.is_set()
    assert found.makespan_s <= start.makespan_s
    assert found.gap > 0


def running_cbc() -> list[bytes]:
    """Command lines of this process's own children that are CBC's: others' may run beside it."""
    found = []
    for path in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with suppress(OSError):
            for child in path.read_text().split():
                found.append(Path(f"/proc/{child}/cmdline").read_bytes())
    return [command for command in found if b"hplb-cbc-" in command]


@pytest.mark.timeout(300)
def test_the_ilp_stops_when_cancelled_and_leaves_no_process() -> None:
    """As soon as CBC is seen to run; else it would go on for an hour."""
    hard = make_layer(64, 8, 8, seed=1, charge=0.4)
    cancelled = Event()

    def cancel_once_it_runs() -> None:
        while not running_cbc():
            time.sleep(0.01)
        cancelled.set()

    Thread(target=cancel_once_it_runs, daemon=True).start()
    start = started(hard, greedy(hard))
    found = ilp(hard, start, 0.0, Deadline(time.monotonic() + 3600, cancelled))
    assert cancelled.is_set()
    assert found.bound.seconds == 0.0
    assert running_cbc() == []


def test_the_lp_file_is_complete(tmp_path: Path) -> None:
    layer = make_layer(6, 2, 2)
    write_lp(layer, tmp_path / "layer.lp")
    text = (tmp_path / "layer.lp").read_text()
    assert text.count("x_5_") >= 2
    assert "Minimize" in text
    assert "Binaries" in text
