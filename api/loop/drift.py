"""Drift: whether heads recover less than the profile promised, judged without I/O.

A head has drifted when the recovery observed over a window lies below the promise by more than
`floor`, and by more than `z` standard errors where the profile knows its spread over prompts: each
round counts as one prompt, which those that read the same prompts again are not. A deployment's
drift is raised when at least `share` of the observed heads have, and cleared with hysteresis: every
threshold counts half while it is raised. More recovery than promised is no drift.

An engine's requests are of many contexts, in two phases. Each kind of them is judged so by itself
and keeps its own verdict: what is raised of long requests, short ones do not clear.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from profiles.cost.work import Phase

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
WORST = 5
"""Heads that a verdict names."""


@dataclass(frozen=True, order=True)
class Kind:
    """Requests alike: of a phase, with contexts above half of `context_tokens` and up to it."""

    phase: Phase
    context_tokens: int


@dataclass(frozen=True)
class DriftPolicy:
    """When heads have drifted, when a deployment has, and over how many rounds that is judged."""

    window: int = 16
    min_rounds: int = 2
    floor: float = 0.05
    z: float = 3.0
    share: float = 0.05


@dataclass(frozen=True, eq=False)
class PromisedRecovery:
    """Recovery of every head at its budget, [layers, heads].

    `spread` is its standard deviation over prompts, like it, where the profile has it; `prompts`,
    how many the promise is a mean over, where that is known.
    """

    recovery: Floats
    spread: Floats | None = None
    prompts: int | None = None

    def standard_error(self, rounds: NDArray[np.int64]) -> Floats | float:
        """Of a mean over so many rounds less the promise, itself a mean over prompts."""
        if self.spread is None:
            return 0.0
        own = 0.0 if self.prompts is None else 1 / self.prompts
        return np.asarray(self.spread * np.sqrt(1 / np.maximum(rounds, 1) + own))


@dataclass(frozen=True)
class RecoveryReport:
    """What one round of one node saw of its part of a head: `recovery` is a mean over `rows`."""

    batch: int
    node: str
    layer: int
    head: int
    rows: int
    recovery: float


@dataclass(frozen=True, eq=False)
class ObservedRecovery:
    """Mean recovery of every head, NaN where unknown, and the rounds behind it; [layers, heads].

    `error` is its standard error, like it, where the rounds themselves say.
    """

    recovery: Floats
    rounds: NDArray[np.int64]
    error: Floats | None = None


@dataclass(frozen=True)
class HeadDrift:
    """One head's promise and what was seen of it, of requests of the `kind` where those differ."""

    layer: int
    head: int
    expected: float
    observed: float
    kind: Kind | None = None


@dataclass(frozen=True)
class DriftVerdict:
    """A verdict, over `heads` heads with at least the policy's rounds; means are over these.

    `rounds` is the most that any head has. `since` is when it was raised. Without a promise to
    compare with, `reason` says why, and there are no figures. `kinds` are the verdicts on each kind
    of an engine's requests, of which this one is made up: raised where one of them is.
    """

    raised: bool = False
    since: float | None = None
    rounds: int = 0
    heads: int = 0
    heads_drifted: int = 0
    observed_mean: float | None = None
    observed_min: float | None = None
    expected_mean: float | None = None
    worst: tuple[HeadDrift, ...] = ()
    reason: str | None = None
    kinds: tuple["KindVerdict", ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "DriftVerdict":
        fields = json.loads(text)
        worst = tuple(
            HeadDrift(**{**head, "kind": Kind(**head["kind"]) if head.get("kind") else None})
            for head in fields["worst"]
        )
        kinds = tuple(
            KindVerdict(Kind(**each["kind"]), cls.from_json(json.dumps(each["verdict"])))
            for each in fields.get("kinds", ())
        )
        return cls(**{**fields, "worst": worst, "kinds": kinds})


@dataclass(frozen=True)
class KindVerdict:
    """The verdict on one kind of an engine's requests."""

    kind: Kind
    verdict: DriftVerdict


def gather(
    reports: Iterable[RecoveryReport], holders: Mapping[str, Mask], layers: int, heads: int
) -> ObservedRecovery:
    """Means over a round of all rows, where `holders` says which heads a node has any part of.

    `holders` [layers, heads] by node. A head counts the rounds that every node with a
    part of it has reported, and their parts count by their rows a round: late rows recover less, so
    that a part is no sample of the whole.
    """
    by_node: dict[str, list[RecoveryReport]] = {}
    for report in reports:
        by_node.setdefault(report.node, []).append(report)
    shape = layers, heads
    mass, rows = np.zeros(shape), np.zeros(shape)
    nobody = np.iinfo(np.int64).max
    rounds = np.full(shape, nobody)
    for node, held in holders.items():
        part_mass, part_rows, part_rounds = _of_node(by_node.get(node, []), shape)
        mass += part_mass / np.maximum(part_rounds, 1)
        rows += part_rows / np.maximum(part_rounds, 1)
        rounds = np.where(held, np.minimum(rounds, part_rounds), rounds)
    rounds = np.where(rounds == nobody, 0, rounds)
    mean = np.divide(mass, rows, out=np.full(shape, np.nan), where=(rounds > 0) & (rows > 0))
    return ObservedRecovery(mean, rounds)


def _of_node(
    reports: list[RecoveryReport], shape: tuple[int, ...]
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Recovery times rows, rows, and rounds, [layers, heads], however many devices saw a head."""
    mass, rows, rounds = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.int64)
    for report in reports:
        mass[report.layer, report.head] += report.rows * report.recovery
        rows[report.layer, report.head] += report.rows
    for _, layer, head in {(report.batch, report.layer, report.head) for report in reports}:
        rounds[layer, head] += 1
    return mass, rows, rounds


def judge(
    promise: PromisedRecovery,
    observed: ObservedRecovery,
    before: DriftVerdict | None,
    policy: DriftPolicy,
    now: float,
) -> DriftVerdict:
    """The verdict on a window, where `before` is the one on the window before it."""
    raised = before is not None and before.raised
    judged, missing, drifted = fallen(promise, observed, raised, policy)
    heads = int(judged.sum())
    if not heads:
        rounds = int(observed.rounds.max(initial=0))
        since = before.since if raised and before is not None else None
        return DriftVerdict(raised=raised, since=since, rounds=rounds)
    count = int(drifted.sum())
    now_raised = count > 0 and count / heads >= (0.5 if raised else 1.0) * policy.share
    since = before.since if raised and before is not None else now
    order = np.argsort(-missing, axis=None, kind="stable")[: min(WORST, count)]
    worst = [np.unravel_index(place, missing.shape) for place in order]
    return DriftVerdict(
        raised=now_raised,
        since=since if now_raised else None,
        rounds=int(observed.rounds.max()),
        heads=heads,
        heads_drifted=count,
        observed_mean=float(observed.recovery[judged].mean()),
        observed_min=float(observed.recovery[judged].min()),
        expected_mean=float(promise.recovery[judged].mean()),
        worst=tuple(
            HeadDrift(
                int(layer),
                int(head),
                float(promise.recovery[layer, head]),
                float(observed.recovery[layer, head]),
            )
            for layer, head in worst
        ),
    )


def fallen(
    promise: PromisedRecovery, observed: ObservedRecovery, raised: bool, policy: DriftPolicy
) -> tuple[Mask, Floats, Mask]:
    """Which heads are judged, how much each misses of its promise, and which have drifted: all
    [layers, heads]. `raised`: whether drift was, so that thresholds count half."""
    scale = 0.5 if raised else 1.0
    judged = observed.rounds >= policy.min_rounds
    missing = np.where(judged, promise.recovery - np.nan_to_num(observed.recovery), -np.inf)
    error = np.broadcast_to(promise.standard_error(observed.rounds), missing.shape)
    if observed.error is not None:
        error = np.maximum(error, observed.error)
    drifted = (missing > scale * policy.floor) & (missing > scale * policy.z * error)
    return judged, missing, drifted


def judge_kinds(
    seen: Mapping[Kind, tuple[PromisedRecovery, ObservedRecovery]],
    before: DriftVerdict | None,
    policy: DriftPolicy,
    now: float,
) -> DriftVerdict:
    """The verdict on a window of an engine's requests, kind by kind.

    `heads` are those judged of any kind, means are over heads and kinds. What was raised stays so
    until requests of its kind are judged again.
    """
    known = {} if before is None else {each.kind: each.verdict for each in before.kinds}
    verdicts, judged_heads, drifted_heads, observed, expected = [], set(), set(), [], []
    for kind in sorted(seen.keys() | {kind for kind, was in known.items() if was.raised}):
        was = known.get(kind)
        if kind not in seen:
            assert was is not None
            verdicts.append(KindVerdict(kind, DriftVerdict(raised=True, since=was.since)))
            continue
        promise, of_kind = seen[kind]
        verdict = judge(promise, of_kind, was, policy, now)
        worst = tuple(replace(head, kind=kind) for head in verdict.worst)
        verdicts.append(KindVerdict(kind, replace(verdict, worst=worst)))
        judged, _, drifted = fallen(promise, of_kind, was is not None and was.raised, policy)
        judged_heads |= set(np.flatnonzero(judged).tolist())
        drifted_heads |= set(np.flatnonzero(drifted).tolist())
        observed += of_kind.recovery[judged].tolist()
        expected += promise.recovery[judged].tolist()
    since = [each.verdict.since for each in verdicts if each.verdict.since is not None]
    shortest = sorted(
        (head for each in verdicts for head in each.verdict.worst),
        key=lambda head: head.observed - head.expected,
    )
    return DriftVerdict(
        raised=any(each.verdict.raised for each in verdicts),
        since=min(since, default=None),
        rounds=max((each.verdict.rounds for each in verdicts), default=0),
        heads=len(judged_heads),
        heads_drifted=len(drifted_heads),
        observed_mean=float(np.mean(observed)) if observed else None,
        observed_min=min(observed, default=None),
        expected_mean=float(np.mean(expected)) if expected else None,
        worst=tuple(shortest[:WORST]),
        kinds=tuple(verdicts),
    )
