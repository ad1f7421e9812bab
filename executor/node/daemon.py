"""The daemon: a node that measures its generation by itself, round after round.

Beside the threads of its `Membership` the caller's own measures.
"""

import traceback
from itertools import count
from uuid import uuid4

import structlog

from api.client.bodies import Assignment, DeviceSample, MeasurementBatch, NodeRegistration
from api.client.planner_client import PlannerClient
from executor.errors import CannotMeasureError
from executor.node.bench import Bench
from executor.node.duty import Duty, unfit
from executor.node.timing_lock import InterruptedWait
from executor.reports.membership import LONG_POLL_S, Membership, one_line
from executor.reports.spool import Spool
from executor.reports.state import NodeState
from profiles.errors import HplbError

log = structlog.get_logger()


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
        self.node, self.bench = node, bench
        self.state, self.spool, self.once = state, spool, once
        self.member = Membership(
            node,
            client,
            state,
            spool,
            lambda assignment: unfit(assignment, node.devices),
            self._measure_again,
            1.0 if once else LONG_POLL_S,
        )
        self.board = self.member.board
        self._done: Assignment | None = None

    def run(self) -> None:
        """Work until the end; state is safe on disk at every moment."""
        self.member.start()
        self.member.guarded(self._work)
        if self.member.fault is not None:
            raise self.member.fault

    def stop(self) -> None:
        """Come to an end after the share in progress; from any thread."""
        self.member.stop()

    def _measure_again(self) -> None:
        self._done = None

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
        log.error("cannot measure", generation=assignment.generation, reason=one_line(fault))
        if not self._dropped(assignment):
            self.member.refuse(assignment, fault)
