"""The driver of refinements: largest gain first, what is told, and when it stops."""

from dataclasses import replace
from itertools import pairwise
from threading import Event, Lock

import numpy as np
import pytest

from solver.deadline import Deadline
from solver.problem import LayerProblem
from solver.search.driver import Board, Refinement, Stage, Tell, search
from solver.search.solve import Search, solve
from solver.solution import Bound, LayerSolution, Progress
from tests.solver.problems import make_layer, make_problem, soon


def board_of(gaps: dict[int, float], tolerance: float = 0.01) -> tuple[Board, list[Progress]]:
    layer = make_layer(4, 1, 2)
    seen: list[Progress] = []
    solved = {
        index: LayerSolution(layer.whole(np.array([0, 1, 0, 1])), 1.0, Bound(1 - gap, "test"))
        for index, gap in gaps.items()
    }
    return Board(solved, dict.fromkeys(gaps, 1), tolerance, seen.append, Lock()), seen


def closing(asked: list[float]) -> Refinement:
    def refine(_: LayerProblem, known: LayerSolution, __: Deadline, ___: Tell) -> LayerSolution:
        asked.append(known.gap)
        return replace(known, bound=Bound(known.makespan_s, "closed"))

    return refine


def test_the_largest_gain_comes_first_and_every_better_bound_is_told() -> None:
    board, seen = board_of({0: 0.1, 1: 0.4, 2: 0.2})
    asked: list[float] = []
    layers = {index: make_layer(4, 1, 2) for index in board.solved}
    search(layers, board, [Stage(closing(asked))], soon(), workers=1)
    assert asked == pytest.approx([0.4, 0.2, 0.1])
    assert [progress.settled for progress in seen] == [1, 2, 3]
    assert seen[-1].gap == pytest.approx(0)


def test_a_plan_within_the_tolerance_leaves_its_open_layers_alone() -> None:
    board, _ = board_of({0: 0.02, 1: 0.0, 2: 0.0})
    asked: list[float] = []
    layers = {index: make_layer(4, 1, 2) for index in board.solved}
    search(layers, board, [Stage(closing(asked))], soon(), workers=2)
    assert asked == []


def test_what_is_no_better_is_not_taken() -> None:
    board, seen = board_of({0: 0.3})
    before = board.solved[0]
    board.improve(0, replace(before, makespan_s=1.1))
    assert board.solved[0].makespan_s == before.makespan_s
    assert seen == []


def test_a_better_bound_does_not_cost_a_better_placement() -> None:
    board, _ = board_of({0: 0.3})
    known = board.solved[0]
    board.improve(0, replace(known, makespan_s=0.9))
    board.improve(0, replace(known, bound=Bound(0.8, "later")))
    assert (board.solved[0].makespan_s, board.solved[0].bound.seconds) == (0.9, 0.8)


def test_progress_never_worsens_while_a_hard_layer_is_searched() -> None:
    seen: list[Progress] = []
    problem = make_problem(3, 48, 6, 6, seed=1)
    solve(problem, Search("auto", 1e-6, 1.5, on_progress=seen.append))
    for earlier, later in pairwise(seen):
        assert later.makespan_s <= earlier.makespan_s * (1 + 1e-12)
        assert later.lower_bound_s >= earlier.lower_bound_s * (1 - 1e-12)
    assert seen


@pytest.mark.timeout(300)
def test_cancelling_divided_heads_keeps_the_best_so_far() -> None:
    problem = make_problem(6, 64, 8, 8, seed=2, divisible=True)
    cancelled = Event()
    told: list[Progress] = []

    def tell(progress: Progress) -> None:
        told.append(progress)
        if len(told) == 2:
            cancelled.set()

    solution = solve(problem, Search("auto", 0.0, 3600, on_progress=tell, cancelled=cancelled))
    assert len(solution.layers) == 6
    assert solution.reason is not None
    assert "was cancelled" in solution.reason
    reached = sum(layer.makespan_s for layer in solution.layers)
    assert reached <= min(progress.makespan_s for progress in told) * (1 + 1e-12)


class Clock:
    """Time as a deadline sees it: it passes where a refinement uses all that it was given."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def until_it_ends(
        self, _: LayerProblem, known: LayerSolution, deadline: Deadline, __: Tell
    ) -> LayerSolution:
        """As a search does that proves nothing."""
        self.now = deadline.at
        return known


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("solver.deadline.time", clock)
    return clock


def test_no_layer_is_begun_after_the_deadline_nor_given_more_than_there_is(clock: Clock) -> None:
    board, _ = board_of(dict.fromkeys(range(4), 0.3))
    layers = {index: make_layer(4, 1, 2) for index in board.solved}
    whole = Deadline(1.0, Event())
    given: list[tuple[float, float]] = []

    def refine(
        layer: LayerProblem, known: LayerSolution, deadline: Deadline, tell: Tell
    ) -> LayerSolution:
        given.append((deadline.at, deadline.left_s))
        return clock.until_it_ends(layer, known, deadline, tell)

    search(layers, board, [Stage(refine, 2.0)], whole, workers=1)
    assert whole.left_s == 0
    # Twice an even share each, while there is any.
    assert np.array(given) == pytest.approx(np.array([(0.5, 0.5), (5 / 6, 1 / 3), (1.0, 1 / 6)]))


def test_a_step_is_repeated_on_the_layers_that_it_was_cut_short_on(clock: Clock) -> None:
    board, _ = board_of({0: 0.3, 1: 0.3})
    layers = {index: make_layer(4, 1, 2) for index in board.solved}
    asked: list[int] = []

    def refine(
        layer: LayerProblem, known: LayerSolution, deadline: Deadline, tell: Tell
    ) -> LayerSolution:
        index = next(index for index, own in layers.items() if own is layer)
        asked.append(index)
        return clock.until_it_ends(layer, known, deadline, tell) if index == 0 else known

    search(layers, board, [Stage(refine)], Deadline(1.0, Event()), workers=1)
    assert asked == [0, 1, 0]
