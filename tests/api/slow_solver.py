"""A solver that the test leads step by step, for what must not hang on how fast a search is."""

from queue import Empty, Queue
from threading import Event, Semaphore
from typing import Any

from solver.planning.planner import make_plan
from solver.plans import Plan
from solver.solution import Progress


class SlowSolver:
    """Stands in for `make_plan`: tells what it is told to, until it is let go or cancelled."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.started = Semaphore(0)
        self._steps: Queue[Progress | None] = Queue()

    def __call__(self, request: Any, rates: Any, **more: Any) -> Plan:
        self.calls.append({"request": request, "rates": rates, **more})
        self.started.release()
        on_progress, cancel = more.pop("on_progress"), more["cancel"]
        assert isinstance(cancel, Event)
        while not cancel.is_set():
            try:
                step = self._steps.get(timeout=0.005)
            except Empty:
                continue
            if step is None:
                break
            on_progress(step)
        return make_plan(request, rates, **more)

    def wait_for_start(self) -> None:
        assert self.started.acquire(timeout=60)

    def tell(self, makespan_s: float, bound_s: float, settled: int = 0, layers: int = 3) -> None:
        """Let the solver report an incumbent and a bound."""
        self._steps.put(Progress(settled, layers, makespan_s, bound_s))

    def finish(self, solves: int = 1) -> None:
        """Let solves end by themselves."""
        for _ in range(solves):
            self._steps.put(None)
