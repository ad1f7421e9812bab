"""Solves in the test's own process, where a test can see and lead them."""

from api.solves.job import SolveJob
from api.solves.resolve import ResolvedRequest
from api.solves.worker import MadePlan
from solver.planning.planner import make_plan


class InProcess:
    """Stands in for a worker process."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...

    def make_plan(self, resolved: ResolvedRequest, solve: SolveJob) -> MadePlan:
        plan = make_plan(
            resolved.whole,
            resolved.rates,
            on_progress=solve.report_progress,
            cancel=solve.cancelled,
        )
        return MadePlan.of(plan)
