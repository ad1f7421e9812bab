"""Carries out the refine loop: refits rates, steps the state machine, does what it asks for.

One thread, so that refits and decisions come one after another; solves are made elsewhere, and one
that takes long keeps its own deployment waiting alone. Everything it knows between two steps is in
the database, and a restart takes up where the last process stopped.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue
from threading import Condition, Thread

import structlog
from prometheus_client.core import GaugeMetricFamily

from api.deployments import deploy
from api.deployments.accuracy import measure
from api.deployments.served import ServedSteps, served
from api.loop import drift_watch
from api.loop.decide import (
    Drifted,
    Explain,
    Measured,
    Move,
    Recoveries,
    RefinePolicy,
    RefineState,
    Replan,
    Replanned,
    decide,
)
from api.loop.drift import DriftPolicy
from api.loop.promise import least_promised
from api.metrics import Metrics
from api.notify import Notifier
from api.problems import Problem
from api.solves.answer import Answerer
from api.solves.job import SolveJob
from api.solves.kept_plan import KeptPlan
from api.store import deployment_store, plan_store, rate_store, sample_store
from api.store.database import Database
from api.store.session import Session
from api.store.tables import StoredDeployment
from profiles.catalogue import device_profile
from profiles.cost.rates import RatesOf
from profiles.cost.regression import refit
from profiles.cost.work import Phase, Workload
from profiles.errors import HplbError
from profiles.model import ModelProfile
from profiles.sizes import MAX_CONTEXT
from profiles.traffic import StepClass
from solver.planning.frequency import frequencies, met
from solver.planning.predict import predicted_loads
from solver.plans import Plan
from solver.request import WorkloadOptions

log = structlog.get_logger()

Kind = tuple[str, Phase]
REST, LONGEST_REST_S = 3.0, 2.0
"""After a pass, in its own lengths: refining takes at most a quarter of a core."""
MAX_BATCH = 65536
"""Of a request."""
MOST_LEFT = 32
"""Past generations that a candidate is held against."""


@dataclass(frozen=True)
class _Work:
    """A batch of a deployment, with samples of these kinds; or its request was solved again."""

    deployment: str
    kinds: frozenset[Kind] = frozenset()
    solved: bool = False


@dataclass(frozen=True)
class _Replan:
    """A live plan's request being solved again; with `corrected` where that is for drift, for the
    `traffic` that an engine reported and its `slowdown`."""

    generation: int
    plan_id: str
    corrected: ModelProfile | None
    traffic: list[StepClass]
    slowdown: float | None
    found: KeptPlan | SolveJob


class Refiner:
    """`take_up()` hands work over; `settle()` waits until all of it is done."""

    def __init__(
        self,
        database: Database,
        answerer: Answerer,
        notifier: Notifier,
        metrics: Metrics,
        policy: RefinePolicy,
        drift_policy: DriftPolicy,
        sample_window: int,
        time_limit_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._answerer = answerer
        self._notifier = notifier
        self._metrics = metrics
        self._policy = policy
        self._drift_policy = drift_policy
        self._window = sample_window
        self._time_limit_s = time_limit_s
        self._clock = clock
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._open = 0
        self._idle = Condition()
        self._replans: dict[str, _Replan] = {}
        self._stopping = False
        metrics.scrape(self._gauges)
        self._thread = Thread(target=self._run, name="refine", daemon=True)

    def start(self) -> None:
        """Take up every deployment where the planner before left it; again where another one had
        been elected since."""
        with self._database.read() as session:
            names = deployment_store.names_to_refine(session)
        for name in names:
            self.take_up(name, frozenset())
        if self._thread.ident is None:
            self._thread.start()

    def take_up(self, deployment: str, kinds: frozenset[Kind]) -> None:
        """A batch of this deployment was stored, with samples of these device types and phases."""
        with self._idle:
            self._open += 1
        self._queue.put(_Work(deployment, kinds))

    def settle(self, timeout_s: float) -> bool:
        """Wait until nothing handed over is left; returns whether that came in time."""
        with self._idle:
            return self._idle.wait_for(lambda: self._open == 0, timeout_s)

    def stop(self) -> None:
        """End after the step at hand; what is left is taken up at the next start."""
        self._stopping = True
        self._queue.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait, once stopped, for the step at hand."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _gauges(self) -> Iterable[GaugeMetricFamily]:
        solving = len(self._replans)
        yield GaugeMetricFamily(
            "hplb_refine_backlog",
            "Batches and deployments that the refine loop has yet to look at.",
            max(self._open - solving, 0),
        )
        yield GaugeMetricFamily(
            "hplb_refine_solves", "Deployments that are being planned again.", solving
        )

    def _run(self) -> None:
        while (first := self._queue.get()) is not None and not self._stopping:
            started = time.monotonic()
            work = [first, *self._waiting()]
            for kind in sorted(frozenset[Kind]().union(*(w.kinds for w in work))):
                self._attempt(partial(self._refit, *kind))
            for name in dict.fromkeys(w.deployment for w in work if w.solved):
                self._attempt(partial(self._take_replan, name))
            for name in dict.fromkeys(w.deployment for w in work if not w.solved):
                self._attempt(partial(self._consider, name))
            self._notifier.notify()
            with self._idle:
                self._open -= len(work)
                self._idle.notify_all()
            # What comes meanwhile is looked at together: intake must not starve for it.
            time.sleep(min(REST * (time.monotonic() - started), LONGEST_REST_S))

    def _attempt(self, job: Callable[[], None]) -> None:
        """One failure, whatever it was, must not end the loop or the other deployments' turn."""
        try:
            job()
        except Exception:
            if not self._stopping:
                log.exception("refine_failed")

    def _waiting(self) -> Iterable[_Work]:
        """What else is in the queue: many nodes report at once, one refit serves them all."""
        while True:
            try:
                item = self._queue.get_nowait()
            except Empty:
                return
            if item is None:
                return
            yield item

    def _refit(self, device: str, phase: Phase) -> None:
        prior = rate_store.prior(device, phase)
        with self._database.read() as session:
            known = sample_store.newest(session, device, phase, self._window)
            in_force = rate_store.in_force(session, device, phase)
        result = refit(prior, device_profile(device), known)
        log.info(
            "rates_refit",
            device=device,
            phase=phase,
            accepted=result.accepted,
            outliers=result.rejected_outliers,
            error_ratio=result.mean_error_ratio,
        )
        if result.accepted and result.rates.version != in_force.version:
            with self._database.write() as session:
                rate_store.keep(session, result.rates, self._clock())
            self._answerer.remembered.forget()
            self._metrics.refits.labels(device, phase).inc()

    def _consider(self, name: str) -> None:
        with self._database.write() as session:
            deployment = deploy.find(session, name)
            drifted = self._look_for_drift(session, deployment)
            if not deployment.refine:
                return
            replan = RefineState.from_json(deployment.refine_state).replanning
            live = plan_store.load(session, deployment.plan_id)
            if drifted:
                replan |= self._step(session, deployment, Drifted(deployment.generation))
            steps = served(session, deployment, deployment.generation, live)
            event = _measured(session, deployment, live, steps)
            if event is not None:
                replan |= self._step(session, deployment, event)
            generation = deployment.generation
        if replan and name not in self._replans:
            self._ask_again(name, generation, live, steps)

    def _look_for_drift(self, session: Session, deployment: StoredDeployment) -> bool:
        """Keep the newest verdict on the live generation; returns whether drift is raised."""
        before = drift_watch.verdict(deployment)
        found = drift_watch.look(session, deployment, self._drift_policy, self._clock())
        if found is None:
            return False
        if found.raised != (before is not None and before.raised):
            log.info("drift", deployment=deployment.name, raised=found.raised)
            self._metrics.drift_raises.labels(deployment.name).inc(found.raised)
        return found.raised

    def _ask_again(self, name: str, generation: int, live: Plan, steps: ServedSteps | None) -> None:
        """Have the live plan's request solved again; looked at when that has ended."""
        traffic, slowdown = (
            ([], None) if steps is None else (steps.traffic.classes(), steps.slowdown)
        )
        try:
            corrected = self._corrected(name, generation)
            found = self._answerer.again(
                live.id, self._time_limit_s, corrected, self._asked_for(live, traffic)
            )
        except drift_watch.DriftError as error:
            self._hold(name, generation, str(error))
            return
        except (HplbError, Problem) as error:
            self._hold(name, generation, _failed(error))
            return
        self._replans[name] = _Replan(generation, live.id, corrected, traffic, slowdown, found)
        with self._idle:
            self._open += 1
        ended = _Work(name, solved=True)
        if isinstance(found, SolveJob):
            found.when_ended(lambda: self._queue.put(ended))
        else:
            self._queue.put(ended)

    def _asked_for(self, live: Plan, traffic: list[StepClass]) -> list[WorkloadOptions]:
        """An engine's traffic as workloads, the largest of which weighs 1."""
        if not traffic:
            return []
        with self._database.read() as session:
            weights = frequencies(live, traffic, rate_store.rates_of(session, live.device_types))
        most = max(weights)
        return [
            WorkloadOptions(
                context_tokens=min(each.context_tokens, MAX_CONTEXT),
                batch_size=min(each.batch_size, MAX_BATCH),
                phase=each.phase,
                weight=float(f"{weight / most:.2g}"),
            )
            for each, weight in zip(traffic, weights, strict=True)
        ]

    def _take_replan(self, name: str) -> None:
        """Judge what came of a deployment's request solved again."""
        replan = self._replans.pop(name)
        found = replan.found
        fate = found.fate if isinstance(found, SolveJob) else "whole"
        if fate == "abandoned":
            return  # the service stops: what is started next asks again
        try:
            if fate == "cut_short":
                raise Problem(409, "the solve was cancelled")
            candidate_id = self._answerer.plan_of(found).plan_id
        except (HplbError, Problem) as error:
            self._hold(name, replan.generation, _failed(error))
            return
        self._judge(name, replan, candidate_id)

    def _hold(self, name: str, generation: int, why: str) -> None:
        """There is no other plan to judge: say why."""
        with self._database.write() as session:
            deployment = deploy.find(session, name)
            if deployment.generation == generation:
                state = RefineState.from_json(deployment.refine_state)
                deployment.refine_state = replace(state, replanning=False).to_json()
                deployment.decision = f"held: {why}"

    def _judge(self, name: str, replan: _Replan, candidate_id: str) -> None:
        with self._database.write() as session:
            deployment = deploy.find(session, name)
            if deployment.generation != replan.generation:
                return
            live = plan_store.load(session, replan.plan_id)
            candidate = plan_store.load(session, candidate_id)
            rates = rate_store.rates_of(session, live.device_types)
            layers, recoveries = deployment.layers, None
            current_s, candidate_s = (
                _makespan_s(p, layers, rates, live, replan.traffic) for p in (live, candidate)
            )
            if replan.corrected is not None:
                current, new = (
                    least_promised(replan.corrected, p, layers) for p in (live, candidate)
                )
                recoveries = Recoveries(current, new)
            event = Replanned(
                candidate.id,
                current_s=current_s,
                candidate_s=candidate_s,
                recoveries=recoveries,
                measured_s=None if replan.slowdown is None else replan.slowdown * current_s,
                returns=_returns(session, deployment, live, candidate),
            )
            self._step(session, deployment, event)

    def _corrected(self, name: str, generation: int) -> ModelProfile | None:
        """The profile as observed, where drift is what the deployment is planned again for.

        Raises DriftError where that says nothing of what it is planned for.
        """
        with self._database.read() as session:
            deployment = session.get_one(StoredDeployment, name)
            correcting = RefineState.from_json(deployment.refine_state).correcting
            if not correcting or deployment.generation != generation:
                return None
            plan = plan_store.load(session, deployment.plan_id)
            return drift_watch.corrected_profile(session, deployment, plan, self._drift_policy)

    def _step(
        self, session: Session, deployment: StoredDeployment, event: Measured | Drifted | Replanned
    ) -> bool:
        """Step the state machine and do what it asks for; returns whether it asks for a replan."""
        now, wants_replan = self._clock(), False
        state, effects = decide(
            RefineState.from_json(deployment.refine_state), event, self._policy, now
        )
        deployment.refine_state = state.to_json()
        for effect in effects:
            match effect:
                case Explain(text):
                    deployment.decision = text
                    log.info("decided", deployment=deployment.name, decision=text)
                case Move(plan_id, reason):
                    deployment.plan_id = plan_id
                    deploy.start_generation(session, deployment, reason, now, by_refine=True)
                    self._metrics.moves.labels(deployment.name).inc()
                case Replan():
                    wants_replan = True
        return wants_replan


def _failed(error: HplbError | Problem) -> str:
    why = error.detail if isinstance(error, Problem) else str(error)
    return f"planning again failed: {why}"


def _measured(
    session: Session, deployment: StoredDeployment, live: Plan, steps: ServedSteps | None
) -> Measured | None:
    """The live generation's window: of an engine's `steps` where there are any."""
    generation = deployment.generation
    if steps is not None:
        expected_s = RefineState.from_json(deployment.refine_state).expected_s
        if expected_s is None:
            rates = rate_store.rates_of(session, live.device_types)
            traffic = steps.traffic.classes()
            expected_s = _makespan_s(live, deployment.layers, rates, live, traffic)
        return Measured(generation, steps.rounds, steps.slowdown * expected_s)
    timed = sample_store.of_generation(session, deployment.name, generation)
    found = measure(live, deployment.layers, timed.seconds) if timed else None
    return None if found is None else Measured(generation, found.rounds, found.makespan_s)


def _makespan_s(
    plan: Plan, layers: list[int], rates: RatesOf, live: Plan, traffic: list[StepClass]
) -> float:
    """Predicted seconds of some layers, a barrier after each: of the plan's first workload, or a
    mean over an engine's `traffic`, weighed as the `live` plan met it."""

    def of(workload: Workload) -> float:
        loads = predicted_loads(plan, rates[workload.phase], workload)
        return float(loads[layers].max(axis=1).sum())

    if not traffic:
        return of(plan.workload.workload)
    weights = frequencies(live, traffic, rates)
    seconds = [of(met(live, each)) for each in traffic]
    return sum(w * s for w, s in zip(weights, seconds, strict=True)) / sum(weights)


def _returns(session: Session, deployment: StoredDeployment, live: Plan, candidate: Plan) -> int:
    """How many placements that the loop has left since the last request the candidate is nearer to
    than to the live one."""
    here, found = _common(live, candidate), 0
    history = deployment_store.history(session, deployment.name)
    for past in reversed(history[-MOST_LEFT:]):
        if past.generation < deployment.generation:
            left = plan_store.load(session, past.plan_id)
            found += _common(left, candidate) > here
        if past.reason == deploy.PUT:
            break
    return found


def _common(one: Plan, other: Plan) -> float:
    """How much of all heads two plans give to the same devices."""
    here, there = one.placed, other.placed
    if [(s.items, s.devices) for s in here] != [(s.items, s.devices) for s in there]:
        return 0.0
    return sum(mine.common(its) for mine, its in zip(here, there, strict=True))
