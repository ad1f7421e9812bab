"""The daemon: keeps a node's lease, learns its generation, measures it, hands the rounds over.

Four threads meet at the board: one keeps the lease, one waits for assignments, one delivers what
is spooled, and the caller's own measures. Only the first speaks of an absent planner.
"""

import traceback
from collections.abc import Callable
from functools import partial
from itertools import count
from threading import Thread
from uuid import uuid4

import structlog

from api.client.bodies import (
    Active,
    Assignment,
    DeviceSample,
    LeaseRenewal,
    MeasurementBatch,
    NodeRegistration,
)
from api.client.planner_client import PlannerClient
from api.client.planner_errors import (
    KeyRefusedError,
    NodeUnknownError,
    PlannerAwayError,
    PlannerError,
)
from executor.errors import CannotMeasureError
from executor.node.bench import Bench
from executor.node.duty import Duty, unfit
from executor.node.timing_lock import InterruptedWait
from executor.reports.board import Board
from executor.reports.delivery import deliver
from executor.reports.outage import Outage
from executor.reports.spool import Spool
from executor.reports.state import NodeState
from profiles.errors import HplbError

log = structlog.get_logger()
LONG_POLL_S = 20.0
LONGEST_ERROR = 1000
"""Characters: a compiler's whole complaint is for the log."""
RENEWALS = 3
"""In the time a lease lasts: one or two may be lost."""


class Daemon:
    """One node. `run` returns when stopped (or, with `once`, when all is measured and handed
    over) and raises HplbError when it cannot go on."""

    def __init__(
        self,
        node: NodeRegistration,
        client: PlannerClient,
        bench: Bench,
        state: NodeState,
        spool: Spool,
        once: bool = False,
    ) -> None:
        self.node, self.client, self.bench = node, client, bench
        self.state, self.spool, self.once = state, spool, once
        self.board = Board()
        self._done: Assignment | None = None
        self._fault: BaseException | None = None

    def run(self) -> None:
        """Work until the end; state is safe on disk at every moment."""
        self._resume()
        delivering = partial(deliver, self.board, self.client, self.spool, self.state)
        for task in (self._keep_lease, self._await_assignments, delivering):
            # Daemon threads: an unanswered long poll must not hold up the end.
            Thread(target=self._guarded, args=(task,), daemon=True).start()
        self._guarded(self._work)
        if self._fault is not None:
            raise self._fault

    def stop(self) -> None:
        """Come to an end after the share in progress; from any thread."""
        self.board.change(stopping=True)

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as fault:
            self._fault = self._fault or fault
        if self._fault is not None:
            self.stop()

    def _resume(self) -> None:
        assignment = self.state.load()
        if assignment is None:
            return
        fault = unfit(assignment, self.node.devices)
        log.info(
            "resuming from the checkpoint",
            deployment=assignment.deployment,
            generation=assignment.generation,
        )
        self.board.change(assignment=None if fault else assignment, error=fault)

    # The lease -----------------------------------------------------------------------------------

    def _keep_lease(self) -> None:
        board, outage = self.board, Outage(self.board, "planner away")
        while not board.stopping:
            reported = board.report
            try:
                if not board.registered:
                    self._register()
                lease = self.client.renew(self.node.node_id, self._renewal(*reported))
            except PlannerAwayError as error:
                outage.wait(error)
                continue
            except NodeUnknownError as error:
                log.warning("the planner does not know this node: registering again")
                board.change(registered=False)
                outage.wait(error, silent=True)
                continue
            outage.over()
            board.wait_for(partial(self._lease_outdated, reported), lease.lease_s / RENEWALS)

    def _register(self) -> None:
        if all(known.node_id != self.node.node_id for known in self.client.nodes()):
            # It may have lost its database, and with it what this node delivered before.
            self.state.forget_rounds()
            self._done = None
        self.client.register(self.node)
        log.info("registered", node=self.node.node_id, planner=self.client.url)
        self.board.change(registered=True, known=None)

    def _renewal(self, active: Active | None, error: str | None) -> LeaseRenewal:
        said = None if error is None else _one_line(error)
        return LeaseRenewal(boot_id=self.node.boot_id, active=active, error=said)

    def _lease_outdated(self, reported: tuple[Active | None, str | None]) -> bool:
        return not self.board.registered or self.board.report != reported

    # Assignments ---------------------------------------------------------------------------------

    def _await_assignments(self) -> None:
        board, outage = self.board, Outage(self.board, "no usable assignment")
        wait_s = 1.0 if self.once else LONG_POLL_S
        while board.wait_for(lambda: board.registered):
            try:
                assignment = self.client.assignment(self.node.node_id, board.known, wait_s)
            except NodeUnknownError as error:
                board.change(registered=False)
                outage.wait(error, silent=True)
                continue
            except KeyRefusedError:
                raise
            except PlannerError as error:
                said = not isinstance(error, PlannerAwayError)
                board.change(unusable=str(error) if said else None)
                outage.wait(error, silent=not error.answered)
                continue
            outage.over()
            if assignment is not None:
                self._take(assignment)
            board.change(asked=True, unusable=None)

    def _take(self, assignment: Assignment) -> None:
        """Accept an assignment: on disk first, acknowledged after."""
        board, active = self.board, assignment.active
        name = {"deployment": active.deployment, "generation": active.generation}
        fault = unfit(assignment, self.node.devices)
        if fault is not None:
            log.error("assignment refused", **name, reason=fault)
            board.change(known=active, error=f"{active.deployment} {active.generation}: {fault}")
        elif assignment == board.assignment:
            board.change(known=active)
        else:
            self.state.save(assignment)
            log.info(
                "assignment received",
                **name,
                devices=assignment.devices,
                layers=len(assignment.layers),
                rounds=assignment.rounds,
            )
            board.change(known=active, assignment=assignment, error=None)

    # Measuring -----------------------------------------------------------------------------------

    def _work(self) -> None:
        board = self.board
        while board.wait_for(lambda: board.assignment is not self._done or self._finished()):
            assignment = board.assignment
            if assignment is None or assignment is self._done:
                self.stop()
                if board.error is not None:
                    raise CannotMeasureError(board.error)
                return
            self._done = assignment
            try:
                self._measure(assignment)
            except InterruptedWait:
                log.info("round abandoned", generation=assignment.generation)
            except HplbError as error:
                self._report(assignment, str(error))
            except Exception as error:
                # Whatever a kernel dies of, the planner and its operator are to hear of it.
                log.error("measuring failed", trace=traceback.format_exc())
                self._report(assignment, f"{type(error).__name__}: {error}")

    def _finished(self) -> bool:
        """Whether, with `once`, nothing is left: asked, measured and handed over."""
        something = self.board.assignment is not None or self.board.error is not None
        return self.once and self.board.asked and something and len(self.spool) == 0

    def _measure(self, assignment: Assignment) -> None:
        generation, duty = assignment.generation, Duty(assignment, self.bench)
        # A round leaves the spool only after the state has it: none is measured twice.
        waiting = self.spool.rounds(assignment.key)
        done = max(waiting, self.state.rounds(assignment.key))
        if done >= assignment.rounds:
            log.info("all rounds are measured already", generation=generation)
        for number in range(done + 1, assignment.rounds + 1):
            self._measure_round(duty, number)
        if assignment.every_s is None or self.once:
            return
        for number in count(max(done, assignment.rounds) + 1):
            self.board.wait_for(lambda: self._dropped(assignment), assignment.every_s)
            if self._dropped(assignment):
                return
            self._measure_round(duty, number)

    def _measure_round(self, duty: Duty, number: int) -> None:
        assignment = duty.assignment
        name = f"round {number}" + f"/{assignment.rounds}" * (number <= assignment.rounds)
        log.info(f"measuring {name}", generation=assignment.generation)
        samples = duty.measure_round(lambda: self._dropped(assignment))
        if samples is None:
            raise InterruptedWait
        if samples:
            self.spool.add(self._batch(assignment, samples), number)
        seconds = sum(sample.seconds for sample in samples)
        log.info(f"{name} done", busy_s=round(seconds, 6))
        self.board.change()

    def _dropped(self, assignment: Assignment) -> bool:
        return self.board.stopping or self.board.assignment is not assignment

    def _batch(self, assignment: Assignment, samples: list[DeviceSample]) -> MeasurementBatch:
        return MeasurementBatch(
            batch_id=str(uuid4()),
            deployment=assignment.deployment,
            plan_id=assignment.plan_id,
            generation=assignment.generation,
            node_id=self.node.node_id,
            timing="alone",
            samples=samples,
        )

    def _report(self, assignment: Assignment, fault: str) -> None:
        fault = _one_line(fault)
        log.error("cannot measure", generation=assignment.generation, reason=fault)
        if not self._dropped(assignment):
            self.board.change(error=f"{assignment.deployment} {assignment.generation}: {fault}")


def _one_line(fault: str) -> str:
    """As a lease may say it."""
    return " ".join(fault.replace("\0", " ").split())[:LONGEST_ERROR]
