"""A rank's sampled steps become batches of the node that it is to its planner.

In a thread of its own, beside those of the node's `Membership`: work is counted, batches are
spooled, and the planner is spoken to where no step waits for it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from queue import Empty, Full, Queue
from threading import Thread
from uuid import uuid4

import numpy as np
from vllm.logger import init_logger

from api.client.bodies import Assignment, DeviceSample, MeasurementBatch, StepReport, WatchedRows
from executor.engines.vllm.metrics import RankReport
from executor.engines.vllm.timing import SampledStep
from executor.inference.phase_work import phase_work
from executor.inference.slot_steps import Phase as Part
from executor.inference.watched_rows import HeldRows
from executor.reports.membership import Membership
from profiles.cost.samples import SHORTEST_S
from profiles.cost.work import FEATURES, Phase
from profiles.errors import HplbError

LOOK_S = 0.5
"""Between two looks at what the planner wants."""
REPORT_S = 10.0
STEPS_A_REPORT = 64
MOST_ASSIGNED = 8
"""Assignments remembered, by their plans: steps timed before a switch are told after it."""
MOST_WAITING = 1024
"""Timed steps of a plan that no assignment has named yet; the oldest are dropped then."""
MOST_QUEUED = 512
"""Timed steps that are not counted yet, a quarter of a megabyte each; the next are dropped then."""
logger = init_logger("vllm.hplb")


@dataclass(frozen=True)
class Measured:
    """A sampled step: of which plan, its parts, and of each layer's sample the part it is of."""

    plan: str
    parts: list[StepReport]
    samples: list[tuple[int, DeviceSample]]


class Reporter:
    """Takes sampled steps from the thread that serves.

    `wants` is told, again and again, of the newest assignment that the node took. Without a
    `member` there is no planner, and metrics are all that is told.
    """

    def __init__(
        self,
        report: RankReport,
        member: Membership | None,
        wants: Callable[[Assignment], None],
        run: str,
    ) -> None:
        self._report, self._member, self._wants, self._run = report, member, wants, run
        self._queue: Queue[SampledStep] = Queue(MOST_QUEUED)
        self._waiting: list[Measured] = []
        self._since = time.monotonic()
        self._assigned: dict[str, Assignment] = {}
        self._spool_dropped = 0
        self._said: str | None = None

    def start(self) -> None:
        """From now on."""
        if self._member is not None:
            self._member.start()
        Thread(target=self._work, name="hplb-reports", daemon=True).start()

    def timed(self, step: SampledStep) -> None:
        """A step whose layers have all computed, or are queued to; not waited for, nor kept where
        counting has fallen too far behind."""
        try:
            self._queue.put_nowait(step)
        except Full:
            self._report.overrun()

    def _work(self) -> None:
        while True:
            try:
                self._look()
            except Exception as error:
                # Whatever it is: requests go on, and so do the next steps' reports.
                logger.warning("HPLB: %s: %s", type(error).__name__, error)
                time.sleep(LOOK_S)

    def _look(self) -> None:
        """Hear what is wanted, take the next step if there is one, report when it is time."""
        if self._member is not None:
            self._hear(self._member)
        try:
            step = self._queue.get(timeout=LOOK_S)
        except Empty:
            step = None
        if step is not None:
            while not step.over:
                time.sleep(1e-3)
            measured = self._measured(step)
            if self._member is not None:
                self._since = self._since if self._waiting else time.monotonic()
                self._waiting.append(measured)
        if self._member is not None and self._due():
            self._hand_over(self._member)

    def _hear(self, member: Membership) -> None:
        assignment = member.board.assignment
        if assignment is not None:
            self._assigned[assignment.plan_id] = assignment
            if len(self._assigned) > MOST_ASSIGNED:
                del self._assigned[next(iter(self._assigned))]
            try:
                self._wants(assignment)
            except HplbError as error:
                self._said = member.refuse(assignment, str(error))
            else:
                if self._said is not None and member.board.error == self._said:
                    member.board.change(error=None)
                self._said = None
        self._report.waiting(len(member.spool))
        if member.spool.dropped > self._spool_dropped:
            self._report.dropped(STEPS_A_REPORT * (member.spool.dropped - self._spool_dropped))
            self._spool_dropped = member.spool.dropped

    def _measured(self, step: SampledStep) -> Measured:
        """The step's work counted, what was watched of it, and both told to Prometheus."""
        phases = step.batch.phases
        parts = [_part(step.number, phase) for phase in phases]
        watched = step.held()
        work = [phase_work(phase, step.groups, step.map.architecture) for phase in phases]
        seconds: dict[Phase, tuple[float, float]] = {}
        samples = []
        for took in step.took():
            phase = parts[took.phase].phase
            busy_s, wall_s = seconds.get(phase, (0.0, 0.0))
            seconds[phase] = busy_s + took.busy_s, wall_s + took.wall_s
            units = dict(zip(FEATURES, work[took.phase][took.layer].tolist(), strict=True))
            sample = DeviceSample(
                layer=took.layer,
                device=0,
                seconds=max(took.busy_s, SHORTEST_S),
                work=units,
                watched=_told(watched.get(took.phase)) if took.layer == step.watched else None,
            )
            samples.append((took.phase, sample))
        self._report.sampled(seconds)
        rows: dict[Phase, tuple[int, float]] = {}
        for number, held in watched.items():
            phase = parts[number].phase
            rows[phase] = int(held.rows.sum()), float(held.rows @ held.recovery)
        self._report.watched(rows)
        return Measured(step.map.plan, parts, samples)

    def _due(self) -> bool:
        waited = time.monotonic() - self._since
        return bool(self._waiting) and (waited >= REPORT_S or len(self._waiting) >= STEPS_A_REPORT)

    def _hand_over(self, member: Membership) -> None:
        """Spool what waits, a batch for each plan that was served; what no assignment names yet
        goes on waiting, as far as there is room."""
        waiting, self._waiting = self._waiting, []
        self._since = time.monotonic()
        for plan, steps in groupby(waiting, key=lambda measured: measured.plan):
            assignment = self._assigned.get(plan)
            if assignment is None:
                self._waiting += steps
            else:
                self._spool(member, assignment, list(steps))
        lost = len(self._waiting) - MOST_WAITING
        if lost > 0:
            logger.warning("HPLB: %d timed steps dropped: no generation has their plan", lost)
            self._report.dropped(lost)
            self._waiting = self._waiting[lost:]

    def _spool(self, member: Membership, assignment: Assignment, steps: list[Measured]) -> None:
        parts: list[StepReport] = []
        samples: list[DeviceSample] = []
        (device,) = assignment.devices
        for step in steps:
            samples += [
                sample.model_copy(update={"device": device, "step": len(parts) + of})
                for of, sample in step.samples
                if sample.layer in assignment.layers
            ]
            parts += step.parts
        if not samples:
            return
        batch = MeasurementBatch(
            batch_id=str(uuid4()),
            deployment=assignment.deployment,
            plan_id=assignment.plan_id,
            generation=assignment.generation,
            node_id=member.node.node_id,
            timing="concurrent",
            run=self._run,
            steps=parts,
            samples=samples,
        )
        done = max(member.spool.rounds(batch.key), member.state.rounds(batch.key))
        member.spool.add(batch, done + 1)
        member.board.change()


def _told(watched: HeldRows | None) -> list[WatchedRows] | None:
    """What a planner is told of rows that were watched."""
    if watched is None or not len(watched.rows):
        return None
    alike = watched.alike
    columns = (alike.head, alike.first, alike.last, alike.rows, alike.recovery)
    return [
        WatchedRows(head=head, first=first, last=last, rows=rows, recovery=float(f"{recovery:.4g}"))
        for head, first, last, rows, recovery in zip(*(x.tolist() for x in columns), strict=True)
    ]


def _part(number: int, phase: Part) -> StepReport:
    """What a planner is told of a batch's prompts, or of its decodes."""
    new, context = phase.context - phase.cached, phase.context
    prompts = bool((new > 1).any())
    # A row of a chunk sees as many keys, on average, as one of a whole prompt of this length.
    whole = phase.cached + context if prompts else context
    return StepReport(
        number=number,
        phase="prefill" if prompts else "decode",
        sequences=len(context),
        new_tokens=int(new.sum()),
        context_tokens=int(context.max()),
        mean_tokens=float(np.average(whole, weights=new)),
    )
