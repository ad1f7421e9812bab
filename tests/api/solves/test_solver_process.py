"""A real worker process: what it is sent, and what it keeps from one task to the next."""

import os
import signal
from collections.abc import Iterator

import pytest

from api.solves.job import SolveJob
from api.solves.resolve import ResolvedRequest
from api.solves.solver_process import SolverProcess
from profiles.model import ModelProfile
from solver.planning.planner import make_plan, rates_of, request_of
from solver.plans import Plan
from tests.api.world import profile


@pytest.fixture
def solver() -> Iterator[SolverProcess]:
    solver = SolverProcess(2**30)
    yield solver
    solver.stop()
    solver.close()


def test_every_plan_is_made_from_its_own_profile(solver: SolverProcess) -> None:
    """Which the process has from the task before, was never sent, or is lost with a dead one."""
    profiles = {name: ModelProfile.model_validate(profile(name)) for name in "ab"}
    for gpus, name in enumerate("aabab", start=2):
        request = request_of(profiles[name], gpus=gpus, context_tokens=4096, method="greedy")
        if gpus == 5:
            running = solver._worker
            assert running is not None
            os.kill(running.process.pid or 0, signal.SIGKILL)
            running.process.join()
        rates = rates_of(request)
        made = solver.make_plan(ResolvedRequest(request, request, rates, "-"), SolveJob("-"))
        assert Plan.parse(made.body, "made").id == make_plan(request, rates).id
