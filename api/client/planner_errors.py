"""What can go wrong between a client and the planner.

HplbError
 +- PlannerError            the planner did not do what was asked
     +- PlannerAwayError    it cannot be reached, or says it cannot serve now: try again
     +- NodeUnknownError    it has no such node: register again
     +- SupersededError     the measurement belongs to an older generation: drop it
     +- RefusedError        it understood and refused: its own words follow
         +- KeyRefusedError the API key is missing or wrong
"""

from profiles.errors import HplbError


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
