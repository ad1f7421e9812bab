"""What can go wrong in the executor.

HplbError
 +- AttentionError      tensors, shares or lengths that do not fit each other or the back end
 +- ShardError          a plan gives a device work that cannot be worked out
 +- CannotMeasureError  this node cannot run that share: phase, memory, device or backend
 +- EvaluationError     a model, a profile, a file or an option that cannot be evaluated
 +- StateError          the state directory cannot be used
 +- PlannerError        the planner did not do what was asked
     +- PlannerAwayError     it cannot be reached, or says it cannot serve now: try again
     +- NodeUnknownError     it has no such node: register again
     +- SupersededError      the measurement belongs to an older generation: drop it
     +- RefusedError         it understood and refused: its own words follow
         +- KeyRefusedError  the API key is missing or wrong
"""

from profiles.errors import HplbError


class AttentionError(HplbError):
    """Tensors, shares, lengths or block size that do not fit each other or the back end."""


class ShardError(HplbError):
    """A layer of a plan cannot be split into what each device computes."""


class CannotMeasureError(HplbError):
    """This node cannot run what it was asked to; the message names the limit."""


class EvaluationError(HplbError):
    """A model, a profile, a file or an option that an evaluation cannot work with."""


class StateError(HplbError):
    """The state directory is in use, unreadable or not a directory."""


class PlannerError(HplbError):
    """An answer of the planner that is not the one asked for, or (`answered` false) none."""

    answered = True


class PlannerAwayError(PlannerError):
    """No answer, or an answer that promises nothing (5xx, 429): the request may be repeated."""

    def __init__(self, message: str, answered: bool) -> None:
        super().__init__(message)
        self.answered = answered


class NodeUnknownError(PlannerError):
    """The planner has forgotten this node, or never knew it."""


class SupersededError(PlannerError):
    """A newer generation is live."""


class RefusedError(PlannerError):
    """The planner refused, for the reason in the message."""


class KeyRefusedError(RefusedError):
    """401 or 403."""
