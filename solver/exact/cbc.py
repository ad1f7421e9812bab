"""Running PuLP's bundled CBC so that a time-out is told from an optimum and cancelling ends it."""

import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pulp

from profiles.errors import HplbError
from solver.deadline import Deadline, stopping
from solver.exact.plain_folder import plain_folder

Outcome = Literal["optimal", "feasible", "nothing"]

CBC_SAFETY = 1 - 1e-6
"""CBC accepts variables this far from feasible; its bounds are lowered by as much."""

OVERRUN_S = 0.1
"""CBC looks at its clock now and then only: where it has missed the end by this, it is killed."""

LEAST_TIME_S = 0.05
"""CBC needs this long to read a layer's program; with less it is not started."""


class SolverMissingError(HplbError):
    """The solver's program is not there or does not run."""


class SolverFailedError(HplbError):
    """The solver's program ended without an answer, though it had time and nobody stopped it."""


def run_cbc(problem: pulp.LpProblem, gap: float, deadline: Deadline) -> Outcome:
    """Solve from the variables' initial values until the gap or the deadline.

    The outcome tells an optimum from a time-out; PuLP's own `status` does not.
    """
    if deadline.left_s < LEAST_TIME_S:
        return "nothing"
    with (
        quiet(),
        TemporaryDirectory(prefix="hplb-cbc-", dir=plain_folder()) as folder,
        stopping(deadline.cancelled, partial(_kill_cbc, folder), deadline.at + OVERRUN_S),
    ):
        # Not even `threads=1`: CBC 2.10 hands its nodes to a thread then, and now and then waits
        # forever for one that waits for it.
        cbc = pulp.PULP_CBC_CMD(msg=False, timeLimit=deadline.left_s, gapRel=gap, warmStart=True)
        if not cbc.available():
            raise SolverMissingError(f"PuLP's bundled CBC does not run here: {cbc.path}")
        cbc.tmpDir = folder
        try:
            problem.solve(cbc)
            if problem.status == pulp.LpStatusUndefined:
                raise pulp.PulpSolverError("its answer is none that CBC gives")
        except (pulp.PulpSolverError, OSError, LookupError, ValueError) as error:
            # Cancelled; or CBC crashed, as 2.10 does when time is up during preprocessing. An
            # answer cut short makes PuLP stumble over words that are not there.
            if deadline.left_s <= 0:
                return "nothing"
            raise SolverFailedError(f"CBC failed in {folder}: {error}") from error
    outcomes: dict[int, Outcome] = {
        pulp.LpSolutionOptimal: "optimal",
        pulp.LpSolutionIntegerFeasible: "feasible",
    }
    return outcomes.get(problem.sol_status, "nothing")


@contextmanager
def quiet() -> Iterator[None]:
    """PuLP 3.3 announces what 4.0 renames on every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _kill_cbc(folder: str) -> None:
    """End the CBC that works in `folder`: PuLP keeps its process to itself, Linux does not."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"cbc") and any(folder.encode() in word for word in words):
                os.kill(int(entry.name), signal.SIGKILL)
