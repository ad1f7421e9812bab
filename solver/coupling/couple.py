"""What couples the layers: the devices' memory, and the cost of leaving the current plan.

Each layer comes solved on its own. First proofs that nothing fits; then identical devices are
relabelled so that memory evens out and little moves; then memory is priced where that was not
enough; at last every layer moves or stays as it pays. Bounds stay: they ignore memory and moving.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from solver.coupling.footprint import Footprint
from solver.coupling.memory import SolveAgain, fit_memory
from solver.coupling.moving import CurrentPlacement, decide_moves
from solver.coupling.relabel import Shared, with_grace
from solver.coupling.shortage import check_memory
from solver.deadline import Deadline
from solver.problem import PlacementProblem
from solver.shares import Ints
from solver.solution import LayerSolution


@dataclass(frozen=True, eq=False)
class Coupled:
    """Solutions that go together, and what moving takes; `kept` says that nothing moves."""

    layers: list[LayerSolution]
    moved_bytes: int = 0
    moving_s: float = 0.0
    kept: bool = False


def couple(
    problem: PlacementProblem,
    layers: Sequence[LayerSolution],
    solve_again: SolveAgain,
    footprint: Footprint,
    limits: Ints | None,
    current: CurrentPlacement | None,
    deadline: Deadline,
) -> Coupled:
    """The layers' solutions within `limits` [devices] bytes, weighed against `current`.

    `solve_again` solves a priced problem within a fraction of the time left. Raises
    MemoryShortageError, MemoryNotMetError and MovingError.
    """
    if current is not None:
        current.check(problem)
    if limits is not None:
        check_memory(problem, footprint, limits)
    most = None if limits is None else limits.astype(np.float64)
    shared = Shared(problem, footprint, most, None if current is None else current.shares)
    solutions = list(layers)
    soon = with_grace(deadline)
    if most is not None or current is not None:
        solutions = shared.relabelled(solutions, soon)
    if most is not None and shared.overruns(solutions).any():
        now = [None] * problem.layers if current is None else current.kept(problem)
        still = replace(shared, held_now=None)
        solutions = fit_memory(still, most, solutions, solve_again, deadline, now)
        solutions = shared.relabelled(solutions, soon)
    if current is None:
        return Coupled(solutions)
    moved = decide_moves(shared, solutions, current, deadline)
    return Coupled(moved.layers, moved.fetched_bytes, moved.seconds, moved.kept)
