"""The refine loop as a state machine without I/O: events in, effects out, time handed in.

    WentLive --> watching --Measured (enough rounds)--> replanning --Replanned--> watching
                 |    `--Drifted (heads recover less)--^     |
                 |                                           +-- gain beats min_gain: Move
                 +-- the move made it worse: Move back

Hysteresis: a new plan must be predicted `min_gain` better than the live one under the same rates.
Cooldown: after a look, however it ended, none for `cooldown_s`. Roll-back: when the first full
window after a move is worse than the last one before it, the old plan returns and the new one is
not tried again. A placement nearer to one that the loop has left than to the live one must gain
twice as much for every time: measuring one plan may make another look better, and moving to and fro
gains nothing.

An engine measures what it is asked for, never the same twice. Its window is then what the plan is
expected to take times measured over predicted seconds of the work reported, before a move and after
it: of the workloads that both plans were held against.

Drift is judged by quality first. Heads that recover less than the profile promised make the loop
plan with curves corrected by what they recover, and both plans are held against these curves: the
new one goes live if its least recovery is `min_recovery_gain` higher and it takes at most
`max_slowdown` longer. It is meant to be slower, so no window of seconds rolls it back. Looks for
drift and for seconds share the cooldown and take turns, so that neither starves the other. Each
look for drift keeps a profile and a plan: one that moved nothing doubles the wait for the next.
"""

import json
from dataclasses import asdict, dataclass, replace

DOUBLINGS = 10
"""Of the cooldown, between looks for drift: with 60 s the longest wait is 17 hours."""


@dataclass(frozen=True)
class RefinePolicy:
    """When to look, when to move, when to move back."""

    min_rounds: int = 2
    min_gain: float = 0.02
    cooldown_s: float = 60.0
    rollback_margin: float = 0.05
    min_recovery_gain: float = 0.01
    max_slowdown: float = 0.5


@dataclass(frozen=True)
class RefineState:
    """What the loop remembers of a deployment; kept with it, so that a restart forgets nothing.

    `correcting`: the newest look was for drift. `drift_looks`: how many this generation had.
    `expected_s`: what the plan was moved to for.
    """

    generation: int = 0
    plan_id: str = ""
    replanning: bool = False
    correcting: bool = False
    looked_at: float | None = None
    drift_looked_at: float | None = None
    drift_looks: int = 0
    measured_s: float | None = None
    expected_s: float | None = None
    moved_from: str | None = None
    moved_from_s: float | None = None
    refused: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "RefineState":
        fields = json.loads(text)
        return cls(**{**fields, "refused": tuple(fields["refused"])})


@dataclass(frozen=True)
class WentLive:
    """A plan went live as a new generation; `by_refine` where this loop asked for it."""

    generation: int
    plan_id: str
    by_refine: bool = False


@dataclass(frozen=True)
class Measured:
    """The live generation's complete rounds so far, and the makespan of their medians."""

    generation: int
    rounds: int
    makespan_s: float


@dataclass(frozen=True)
class Drifted:
    """Heads of the live generation recover less than promised."""

    generation: int


@dataclass(frozen=True)
class Recoveries:
    """The least recovery of any head by the corrected curves: the live plan's, the new one's."""

    current: float
    candidate: float


@dataclass(frozen=True)
class Replanned:
    """The request solved again: both plans predicted under the newest rates, measured layers.

    `recoveries` where it was solved with corrected curves. `measured_s`: what the live plan takes
    of the same, as measured, where its window was of something else. `returns`: how many placements
    that the loop has left are nearer to this one than the live one is.
    """

    plan_id: str
    current_s: float
    candidate_s: float
    recoveries: Recoveries | None = None
    measured_s: float | None = None
    returns: int = 0


@dataclass(frozen=True)
class Replan:
    """Solve the deployment's request again under the newest rates.

    With curves corrected as well where it is for drift (`RefineState.correcting`).
    """


@dataclass(frozen=True)
class Move:
    """Make a plan live as a new generation."""

    plan_id: str
    reason: str


@dataclass(frozen=True)
class Explain:
    """What was decided, in words, for the deployment's view."""

    text: str


Event = WentLive | Measured | Drifted | Replanned
Effect = Replan | Move | Explain


def decide(
    state: RefineState, event: Event, policy: RefinePolicy, now: float
) -> tuple[RefineState, list[Effect]]:
    """The next state and what to do about it; an event of a past generation changes nothing."""
    match event:
        case WentLive():
            return _moved(state, event), []
        case Measured() if event.generation == state.generation:
            return _measured(state, event, policy, now)
        case Drifted() if event.generation == state.generation:
            return _drifted(state, policy, now)
        case Replanned() if state.replanning:
            return _replanned(replace(state, replanning=False), event, policy)
        case _:
            return state, []


def _moved(state: RefineState, event: WentLive) -> RefineState:
    fresh = replace(
        state,
        generation=event.generation,
        plan_id=event.plan_id,
        replanning=False,
        correcting=False,
        drift_looked_at=None,
        drift_looks=0,
        measured_s=None,
    )
    if event.by_refine:
        return fresh
    # An operator's move starts over: there is nothing to roll back to and nothing refused.
    return replace(
        fresh, moved_from=None, moved_from_s=None, expected_s=None, refused=(), looked_at=None
    )


def _measured(
    state: RefineState, event: Measured, policy: RefinePolicy, now: float
) -> tuple[RefineState, list[Effect]]:
    if event.rounds < policy.min_rounds:
        return state, []
    state = replace(state, measured_s=event.makespan_s)
    if state.moved_from is not None and state.moved_from_s is not None:
        before_s, back_to = state.moved_from_s, state.moved_from
        worse = event.makespan_s / before_s - 1
        state = replace(state, moved_from=None, moved_from_s=None)
        if worse > policy.rollback_margin:
            refused = (*state.refused, state.plan_id)
            state = replace(state, refused=refused, looked_at=now, expected_s=None)
            reason = (
                f"rolled back: measured {event.makespan_s:.6g} s, {100 * worse:.1f} % worse "
                f"than the {before_s:.6g} s before the move"
            )
            return state, [Move(back_to, reason), Explain(reason)]
    if state.replanning or not _cooled_down(state, policy, now):
        return state, []
    return replace(state, replanning=True, correcting=False, looked_at=now), [Replan()]


def _drifted(
    state: RefineState, policy: RefinePolicy, now: float
) -> tuple[RefineState, list[Effect]]:
    # A move for seconds is judged by its first window before anything else is tried.
    unjudged = state.moved_from is not None
    others_turn = state.correcting and state.measured_s is not None
    if unjudged or state.replanning or others_turn or not _cooled_down(state, policy, now):
        return state, []
    wait_s = policy.cooldown_s * 2 ** min(state.drift_looks, DOUBLINGS)
    if state.drift_looked_at is not None and now - state.drift_looked_at < wait_s:
        return state, []
    looked = replace(state, drift_looked_at=now, drift_looks=state.drift_looks + 1)
    return replace(looked, replanning=True, correcting=True, looked_at=now), [Replan()]


def _cooled_down(state: RefineState, policy: RefinePolicy, now: float) -> bool:
    return state.looked_at is None or now - state.looked_at >= policy.cooldown_s


def _replanned(
    state: RefineState, event: Replanned, policy: RefinePolicy
) -> tuple[RefineState, list[Effect]]:
    if event.plan_id == state.plan_id:
        return state, [Explain("held: planning again gave the same plan")]
    if event.plan_id in state.refused:
        return state, [Explain("held: the new plan was tried before and measured worse")]
    if event.recoveries is not None:
        effects = _corrected(event, event.recoveries, policy)
        moves = any(isinstance(effect, Move) for effect in effects)
        return (replace(state, expected_s=None) if moves else state), effects
    gain = 1 - event.candidate_s / event.current_s
    seconds = f"{event.current_s:.6g} s to {event.candidate_s:.6g} s"
    least = policy.min_gain * 2 ** min(event.returns, DOUBLINGS)
    if gain < least:
        left = f": its like was left {event.returns} times" if event.returns else ""
        return state, [
            Explain(
                f"held: predicted gain {100 * gain:.1f} % ({seconds}) is below the threshold "
                f"of {100 * least:.1f} %{left}"
            )
        ]
    reason = f"moved: predicted gain {100 * gain:.1f} % ({seconds})"
    measured_s = state.measured_s if event.measured_s is None else event.measured_s
    state = replace(
        state, moved_from=state.plan_id, moved_from_s=measured_s, expected_s=event.candidate_s
    )
    return state, [Move(event.plan_id, reason), Explain(reason)]


def _corrected(event: Replanned, recoveries: Recoveries, policy: RefinePolicy) -> list[Effect]:
    """Quality first: nothing is remembered to roll back to, for seconds were not what it is for."""
    gain = recoveries.candidate - recoveries.current
    slower = event.candidate_s / event.current_s - 1
    least = f"least recovery {recoveries.current:.3f} to {recoveries.candidate:.3f}"
    seconds = f"{event.current_s:.6g} s to {event.candidate_s:.6g} s"
    if gain < policy.min_recovery_gain:
        return [
            Explain(
                f"held: drift, but planning with corrected curves gains too little ({least}, "
                f"threshold {policy.min_recovery_gain:.3g})"
            )
        ]
    if slower > policy.max_slowdown:
        return [
            Explain(
                f"held: drift, but keeping the promise costs {100 * slower:.1f} % ({seconds}), "
                f"more than {100 * policy.max_slowdown:.1f} %; {least}"
            )
        ]
    reason = f"moved: drift, {least} by corrected curves ({seconds})"
    return [Move(event.plan_id, reason), Explain(reason)]
