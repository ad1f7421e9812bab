"""Search the layers whose gap is open, largest possible gain first, several at a time.

A refinement takes one layer's solution and returns a better one, or the same: better placement and
better bound each count on their own. Refinements come cheapest first; the last one is repeated,
each time longer, until the plan as a whole is within the tolerance or the deadline has come.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock

from solver.deadline import Deadline
from solver.problem import LayerProblem
from solver.solution import LayerSolution, Progress

Tell = Callable[[LayerSolution], None]
Refinement = Callable[[LayerProblem, LayerSolution, Deadline, Tell], LayerSolution]
"""Gets a layer, its solution, a deadline, and whom to tell of better solutions on the way."""

OnProgress = Callable[[Progress], None]


LAST_SHARES = 2.0
"""Of the last step, which is repeated: many layers need less than their even share."""


@dataclass(frozen=True)
class Stage:
    """A refinement, and how many times a layer's even share of the time left it may take.

    What others leave unused passes on to the layers that come later. One that uses every core by
    itself gets one layer at a time.
    """

    refine: Refinement
    even_shares: float = 1.0
    alone: bool = False


@dataclass(frozen=True, eq=False)
class Board:
    """Where the layers stand: `weight[i]` layers are alike and share solution `solved[i]`."""

    solved: dict[int, LayerSolution]
    weight: Mapping[int, int]
    tolerance: float
    on_progress: OnProgress | None
    lock: Lock

    def improve(self, index: int, solution: LayerSolution) -> None:
        """Take a layer's better shares and its better bound, each on its own, and tell."""
        with self.lock:
            known = self.solved[index]
            better = solution if solution.makespan_s <= known.makespan_s else known
            whole = known.whole if solution.whole is None else solution.whole
            bound = max(known.bound, solution.bound, key=lambda b: b.seconds)
            self.solved[index] = replace(better, bound=bound, whole=whole)
            gained = better.makespan_s < known.makespan_s or bound.seconds > known.bound.seconds
            if gained and self.on_progress is not None:
                self.on_progress(self.progress())

    def progress(self) -> Progress:
        """The plan as it stands."""
        every = [(self.weight[index], solution) for index, solution in self.solved.items()]
        return Progress(
            settled=sum(weight for weight, s in every if s.gap <= self.tolerance),
            layers=sum(weight for weight, _ in every),
            makespan_s=sum(weight * s.makespan_s for weight, s in every),
            lower_bound_s=sum(weight * s.bound.seconds for weight, s in every),
        )

    def open(self) -> list[int]:
        """Layers above the tolerance, largest possible gain first; none if the plan is within."""
        if self.progress().gap <= self.tolerance:
            return []
        unproved = [index for index, s in self.solved.items() if s.gap > self.tolerance]
        gain = {i: self.solved[i].makespan_s - self.solved[i].bound.seconds for i in unproved}
        return sorted(unproved, key=lambda index: -self.weight[index] * gain[index])


def search(
    layers: Mapping[int, LayerProblem],
    board: Board,
    steps: Sequence[Stage],
    deadline: Deadline,
    workers: int,
    *,
    by_clock: bool = True,
) -> None:
    """Refine the open layers on `board` until the tolerance, the deadline or no more to try.

    Unless `by_clock`, a layer may take until the deadline: what a refinement reaches then depends
    on the work it counts for itself, not on how fast the machine is.
    """
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        waiting = board.open()
        while waiting and deadline.left_s > 0:
            cut_short = _one_pass(
                layers, board, step, waiting, deadline, 1 if step.alone else workers, by_clock
            )
            waiting = [i for i in board.open() if i in cut_short] if last else []


def _one_pass(
    layers: Mapping[int, LayerProblem],
    board: Board,
    step: Stage,
    waiting: list[int],
    deadline: Deadline,
    workers: int,
    by_clock: bool,
) -> set[int]:
    """Refine each layer once within its share of what is left; who used all of it."""
    cut_short: set[int] = set()

    def work(place: int) -> None:
        index = waiting[place]
        turns = -(-(len(waiting) - place) // workers)
        share = (
            deadline.within(step.even_shares * deadline.left_s / turns) if by_clock else deadline
        )
        if share.left_s <= 0 or board.progress().gap <= board.tolerance:
            return
        tell = partial(board.improve, index)
        tell(step.refine(layers[index], board.solved[index], share, tell))
        if share.left_s <= 0:
            cut_short.add(index)

    if workers == 1 or len(waiting) == 1:
        for place in range(len(waiting)):
            work(place)
        return cut_short
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="layer") as pool:
        list(pool.map(work, range(len(waiting))))
    return cut_short
