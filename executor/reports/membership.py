"""A node among its planner's: the lease, what it is to run, and what it measured handed over.

Three threads that meet at the board: one keeps the lease, one waits for assignments, one delivers
what is spooled. Only the first speaks of an absent planner. Whoever measures, a daemon or an
engine's rank, is the fourth.
"""

from collections.abc import Callable
from functools import partial
from threading import Thread

import structlog

from api.client.bodies import Active, Assignment, LeaseRenewal, NodeRegistration
from api.client.planner_client import PlannerClient
from api.client.planner_errors import (
    KeyRefusedError,
    NodeUnknownError,
    PlannerAwayError,
    PlannerError,
)
from executor.reports.board import Board
from executor.reports.delivery import deliver
from executor.reports.outage import Outage
from executor.reports.spool import Spool
from executor.reports.state import NodeState

log = structlog.get_logger()
LONG_POLL_S = 20.0
LONGEST_ERROR = 1000
"""Characters: a compiler's whole complaint is for the log."""
RENEWALS = 3
"""In the time a lease lasts: one or two may be lost."""


class Membership:
    """One node's. `unfit` says why the node cannot run an assignment, None where it can;
    `forgotten` is called where the planner does not know the node any more, and perhaps lost what
    it delivered."""

    def __init__(
        self,
        node: NodeRegistration,
        client: PlannerClient,
        state: NodeState,
        spool: Spool,
        unfit: Callable[[Assignment], str | None],
        forgotten: Callable[[], None],
        poll_s: float = LONG_POLL_S,
    ) -> None:
        self.node, self.client = node, client
        self.state, self.spool = state, spool
        self.board = Board()
        self._unfit, self._forgotten, self._poll_s = unfit, forgotten, poll_s
        self._fault: BaseException | None = None

    @property
    def fault(self) -> BaseException | None:
        """What the first of its threads that failed died of."""
        return self._fault

    def start(self) -> None:
        """Go on with the last good assignment, and with the planner."""
        self._resume()
        delivering = partial(deliver, self.board, self.client, self.spool, self.state)
        for task in (self._keep_lease, self._await_assignments, delivering):
            # Daemon threads: an unanswered long poll must not hold up the end.
            Thread(target=self.guarded, args=(task,), daemon=True).start()

    def stop(self) -> None:
        """Let its threads end; from any thread."""
        self.board.change(stopping=True)

    def guarded(self, task: Callable[[], None]) -> None:
        """Run a thread's task; its failure ends the others."""
        try:
            task()
        except BaseException as fault:
            self._fault = self._fault or fault
        if self._fault is not None:
            self.stop()

    def refuse(self, assignment: Assignment, fault: str) -> str:
        """Let the lease say why an assignment does not run; what it says."""
        said = f"{assignment.deployment} {assignment.generation}: {one_line(fault)}"
        self.board.change(error=said)
        return said

    def _resume(self) -> None:
        assignment = self.state.load()
        if assignment is None:
            return
        fault = self._unfit(assignment)
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
            self._forgotten()
        self.client.register(self.node)
        log.info("registered", node=self.node.node_id, planner=self.client.url)
        self.board.change(registered=True, known=None)

    def _renewal(self, active: Active | None, error: str | None) -> LeaseRenewal:
        said = None if error is None else one_line(error)
        return LeaseRenewal(boot_id=self.node.boot_id, active=active, error=said)

    def _lease_outdated(self, reported: tuple[Active | None, str | None]) -> bool:
        return not self.board.registered or self.board.report != reported

    # Assignments ---------------------------------------------------------------------------------

    def _await_assignments(self) -> None:
        board, outage = self.board, Outage(self.board, "no usable assignment")
        while board.wait_for(lambda: board.registered):
            try:
                assignment = self.client.assignment(self.node.node_id, board.known, self._poll_s)
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
        fault = self._unfit(assignment)
        if fault is not None:
            log.error("assignment refused", **name, reason=fault)
            self.refuse(assignment, fault)
            board.change(known=active)
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


def one_line(fault: str) -> str:
    """As a lease may say it."""
    return " ".join(fault.replace("\0", " ").split())[:LONGEST_ERROR]
