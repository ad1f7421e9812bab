"""Drift: whether heads recover less than the profile promised, judged without I/O.

A head has drifted when the recovery observed over a window lies below the promise by more than
`floor`, and by more than `z` standard errors where the profile knows its spread over prompts. A
deployment's drift is raised when at least `share` of the observed heads have, and cleared with
hysteresis: every threshold counts half while it is raised. More recovery than promised is no drift.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
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
class Promise:
    """Recovery of every head at its budget, [layers, heads].

    `spread` is its standard deviation over prompts, like it, where the profile has it.
    """

    recovery: Floats
    spread: Floats | None = None


@dataclass(frozen=True)
class Report:
    """What one round of one node saw of its part of a head: `recovery` is a mean over `rows`."""

    batch: int
    node: str
    layer: int
    head: int
    rows: int
    recovery: float


@dataclass(frozen=True, eq=False)
class Observed:
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
class Drift:
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
    def from_json(cls, text: str) -> "Drift":
        fields = json.loads(text)
        return cls(**{**fields, "worst": tuple(HeadDrift(**head) for head in fields["worst"])})


def gather(reports: Iterable[Report], layers: int, heads: int) -> Observed:
    """Means over all rows seen; parts of a head on several devices count by their rows.

    A node's round counts once, however many of its devices saw a part of the head.
    """
    mass, rows = np.zeros((layers, heads)), np.zeros((layers, heads))
    seen: dict[str, set[tuple[int, int, int]]] = {}
    for report in reports:
        place = report.layer, report.head
        mass[place] += report.rows * report.recovery
        rows[place] += report.rows
        seen.setdefault(report.node, set()).add((report.batch, *place))
    rounds = np.zeros((layers, heads), dtype=np.int64)
    for places in seen.values():
        of_node = np.zeros_like(rounds)
        for _, layer, head in places:
            of_node[layer, head] += 1
        rounds = np.maximum(rounds, of_node)
    return Observed(np.where(rows > 0, mass / np.maximum(rows, 1), np.nan), rounds)


def judge(
    promise: Promise, observed: Observed, before: Drift | None, policy: DriftPolicy, now: float
) -> Drift:
    """The verdict on a window, where `before` is the one on the window before it."""
    raised = before is not None and before.raised
    scale = 0.5 if raised else 1.0
    judged = observed.rounds >= policy.min_rounds
    heads = int(judged.sum())
    if not heads:
        rounds = int(observed.rounds.max(initial=0))
        since = before.since if raised and before is not None else None
        return Drift(raised=raised, since=since, rounds=rounds)
    missing = np.where(judged, promise.recovery - np.nan_to_num(observed.recovery), -np.inf)
    drifted = missing > scale * policy.floor
    if promise.spread is not None:
        error = promise.spread / np.sqrt(np.maximum(observed.rounds, 1))
        drifted &= missing > scale * policy.z * error
    count = int(drifted.sum())
    now_raised = count > 0 and count / heads >= scale * policy.share
    since = before.since if raised and before is not None else now
    order = np.argsort(-missing, axis=None, kind="stable")[: min(WORST, count)]
    worst = [np.unravel_index(place, missing.shape) for place in order]
    return Drift(
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
