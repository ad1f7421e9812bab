"""A worker process: one plan after the other, asked for and handed over through a pipe.

A search may take all memory, abort in native code or not look at its clock: here it costs this
process, which can be killed at any time. CBC, a process of its own, and all files go with it.
"""

import gc
import os
import resource
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, Literal

from profiles.cost.rates import Rates
from profiles.errors import HplbError
from profiles.model import ModelProfile
from solver.plans import Plan
from solver.request import PlanRequest


@dataclass(frozen=True)
class Task:
    """What `solver.planning.planner.make_plan` is to make a plan of.

    The request names its profile by digest. `profile` is None where that is the task's before: one
    of half a megabyte takes as long to be handed over as a third of a quick plan's search.
    """

    request: PlanRequest
    profile: ModelProfile | None
    rates: Sequence[Mapping[str, Rates]]


@dataclass(frozen=True)
class Ready:
    """The process has loaded what it needs: from now on a task begins at once."""


@dataclass(frozen=True)
class Cancel:
    """The task at hand is to end with its best plan so far."""


@dataclass(frozen=True)
class MadePlan:
    """A plan as it is handed over: its JSON, and what a list of plans shows of it."""

    body: str
    summary: dict[str, Any]

    @classmethod
    def of(cls, plan: Plan) -> "MadePlan":
        shown = {"id", "status", "solver", "makespan_s", "lower_bound_s", "gap", "bubble_ratio"}
        summary = {
            **plan.model_dump(mode="json", include=shown),
            "profile": plan.profile.name,
            "devices": dict(Counter(plan.devices)),
            "context_tokens": plan.workload.context_tokens,
            "phase": plan.workload.phase,
            "deployment": plan.workload.deployment,
            "created_at": plan.created_at,
        }
        return cls(plan.model_dump_json(), summary)


@dataclass(frozen=True)
class Failure:
    """Why there is no plan: `refused` for what cannot be planned, `fault` with a traceback."""

    kind: Literal["refused", "memory", "fault"]
    message: str


def serve(pipe: Connection, folder: str, memory_bytes: int) -> None:
    """The process: plans until nobody holds the pipe's other end; files lie in `folder`.

    `memory_bytes` bounds what it allocates, and what CBC does. Address space is no measure of
    that: OR-tools' libraries alone map half a gigabyte.
    """
    # Whoever asks for a search waits for it, whoever asks the service does not.
    os.nice(10)
    # A group of its own: CBC is in it, and a terminal's Ctrl-C is not sent to it.
    os.setpgid(0, 0)
    # What is handled here ends CBC, which starts with the default: see `_leave`.
    signal.signal(signal.SIGUSR1, lambda *_: None)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("500")  # where the machine's memory runs out, before the service
    os.mkdir(folder, 0o700)
    tempfile.tempdir = folder
    tasks: SimpleQueue[tuple[Task, Event]] = SimpleQueue()
    Thread(target=_hear, args=(pipe, folder, tasks), name="hear", daemon=True).start()
    sending = Lock()

    def tell(message: object) -> None:
        with sending, suppress(OSError):
            pipe.send(message)

    _load_solvers()
    # They stay: no collection need go through all of OR-tools again, for every plan's figures.
    gc.collect()
    gc.freeze()
    tell(Ready())
    profile = None
    while True:
        task, cancelled = tasks.get()
        profile = task.profile or profile
        request = task.request.model_copy(update={"profile": profile})
        tell(_made(request, task.rates, tell, cancelled))


def _load_solvers() -> None:
    """Now, so that no solve waits for it; the service itself never loads them."""
    import solver.exact.cbc
    import solver.exact.cp_sat
    import solver.planning.planner  # noqa: F401


def _made(
    request: PlanRequest, rates: Sequence[Mapping[str, Rates]], tell: Any, cancelled: Event
) -> MadePlan | Failure:
    from solver.planning.planner import make_plan

    try:
        return MadePlan.of(make_plan(request, rates, on_progress=tell, cancel=cancelled))
    except HplbError as error:
        return Failure("refused", str(error))
    except MemoryError:
        return Failure("memory", "")
    except Exception:
        return Failure("fault", traceback.format_exc())


def _hear(pipe: Connection, folder: str, tasks: "SimpleQueue[tuple[Task, Event]]") -> None:
    """Take what comes at any time: tasks, and that the newest of them is cancelled."""
    cancelled = Event()
    with suppress(EOFError, OSError):
        while True:
            match pipe.recv():
                case Task() as task:
                    cancelled = Event()
                    tasks.put((task, cancelled))
                case Cancel():
                    cancelled.set()
    _leave(folder)


def _leave(folder: str) -> None:
    """The service is gone: leave neither a CBC nor files behind."""
    os.killpg(0, signal.SIGUSR1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)
