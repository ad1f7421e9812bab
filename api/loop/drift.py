"""Drift: whether heads recover less than the profile promised, judged without I/O.

A head has drifted when the recovery observed over a window lies below the promise by more than
`floor`, and by more than `z` standard errors where the profile knows its spread over prompts: each
round counts as one prompt, which those that read the same prompts again are not. A deployment's
drift is raised when at least `share` of the observed heads have, and cleared with hysteresis: every
threshold counts half while it is raised. More recovery than promised is no drift.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
WORST = 5
"""Heads that a verdict names."""


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
    """Mean recovery of every head, NaN where unknown, and the rounds behind it; [layers, heads]."""

    recovery: Floats
    rounds: NDArray[np.int64]


@dataclass(frozen=True)
class HeadDrift:
    """One head's promise and what was seen of it."""

    layer: int
    head: int
    expected: float
    observed: float


@dataclass(frozen=True)
class DriftVerdict:
    """A verdict, over `heads` heads with at least the policy's rounds; means are over these.

    `rounds` is the most that any head has. `since` is when it was raised. Without a promise to
    compare with, `reason` says why, and there are no figures.
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

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "DriftVerdict":
        fields = json.loads(text)
        return cls(**{**fields, "worst": tuple(HeadDrift(**head) for head in fields["worst"])})


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
    scale = 0.5 if raised else 1.0
    judged = observed.rounds >= policy.min_rounds
    heads = int(judged.sum())
    if not heads:
        rounds = int(observed.rounds.max(initial=0))
        since = before.since if raised and before is not None else None
        return DriftVerdict(raised=raised, since=since, rounds=rounds)
    missing = np.where(judged, promise.recovery - np.nan_to_num(observed.recovery), -np.inf)
    drifted = missing > scale * policy.floor
    drifted &= missing > scale * policy.z * promise.standard_error(observed.rounds)
    count = int(drifted.sum())
    now_raised = count > 0 and count / heads >= scale * policy.share
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
