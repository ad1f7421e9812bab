"""What couples the layers: the devices' memory, and the cost of leaving the current plan.

Each layer comes solved on its own. First proofs that nothing fits; then identical devices are
relabelled so that memory evens out and little moves; then memory is priced where that was not
enough; at last every layer moves or stays as it pays. Bounds stay: they ignore memory and moving.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from solver.coupling.bytes import Footprint
from solver.coupling.memory import SolveAgain, fit_memory
from solver.coupling.moving import CurrentPlacement, decide_moves
from solver.coupling.room import Room, with_grace
from solver.coupling.shortage import check_memory
from solver.placement.exact import Deadline
from solver.problem import Ints, PlacementProblem
from solver.solution import LayerSolution


@dataclass(frozen=True, eq=False)
class Coupled:
    """Solutions that go together; bytes of every device, `[devices]`, and what moving takes.

    `current_makespan_s` is None without a current plan; `kept` says that nothing moves.
    """

    layers: list[LayerSolution]
    weight_bytes: list[int]
    kv_bytes: list[int]
    moved_bytes: int = 0
    moving_s: float = 0.0
    current_makespan_s: float | None = None
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
    room = Room(problem, footprint, most, None if current is None else current.shares)
    solutions = list(layers)
    soon = with_grace(deadline)
    if most is not None or current is not None:
        solutions = room.relabelled(solutions, soon)
    if most is not None and room.overruns(solutions).any():
        now = [None] * problem.layers if current is None else current.kept(problem)
        still = replace(room, held_now=None)
        solutions = fit_memory(still, most, solutions, solve_again, deadline, now)
        solutions = room.relabelled(solutions, soon)
    if current is None:
        return Coupled(solutions, *_held(room, solutions))
    moved = decide_moves(room, solutions, current, deadline)
    return Coupled(
        moved.layers,
        *_held(room, moved.layers),
        moved_bytes=moved.fetched_bytes,
        moving_s=moved.seconds,
        current_makespan_s=moved.current_makespan_s,
        kept=moved.kept,
    )


def _held(room: Room, solutions: Sequence[LayerSolution]) -> tuple[list[int], list[int]]:
    """Weights and K/V of every device, all layers."""
    shares = [room.problem.shares_of_heads(s.shares) for s in solutions]
    kv = np.array([room.footprint.kv_bytes(i, s) for i, s in enumerate(shares)]).sum(axis=0)
    weights = room.held(solutions).sum(axis=0) - kv
    return [int(n) for n in weights], [int(n) for n in kv]
