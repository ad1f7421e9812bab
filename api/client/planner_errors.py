"""What can go wrong between a client and the planner.

HplbError
 +- PlannerError                 the planner did not do what was asked
     +- PlannerAwayError         it cannot be reached, or says it cannot serve now: try again
     +- NodeUnknownError         it has no such node: register again
     +- SupersededError          the measurement belongs to an older generation: drop it
     +- RefusedError             it understood and refused: its own words follow
         +- KeyRefusedError      the API key is missing, wrong, or not for this
         +- NotFoundError        there is no such thing
         +- ConflictError        it does not go together with what is there
         +- BadRequestError      the request itself is wrong, its fields by name
"""

from collections.abc import Mapping

from api.client.bodies import ProblemBody
from profiles.errors import HplbError


class PlannerError(HplbError):
    """An answer of the planner that is not the one asked for, or (`answered` false) none.

    `problem` is what it said (RFC 9457), `request_id` what its log calls the request.
    """

    answered = True

    def __init__(
        self, message: str, problem: ProblemBody | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.problem = problem
        self.request_id = request_id


class PlannerAwayError(PlannerError):
    """No answer, or an answer that promises nothing (5xx, 429): the request may be repeated.

    After `retry_after_s`, where the planner has said when.
    """

    def __init__(
        self,
        message: str,
        answered: bool,
        problem: ProblemBody | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, problem, request_id)
        self.answered = answered
        self.retry_after_s = retry_after_s


class NodeUnknownError(PlannerError):
    """The planner has forgotten this node, or never knew it."""


class SupersededError(PlannerError):
    """A newer generation is live."""


class RefusedError(PlannerError):
    """The planner refused, for the reason in the message."""


class KeyRefusedError(RefusedError):
    """401 without a key that is known, 403 with one that may not do this."""


class NotFoundError(RefusedError):
    """404."""


class ConflictError(RefusedError):
    """409."""


class BadRequestError(RefusedError):
    """400, 413 or 422: `problem.errors` are the fields."""


REFUSALS: Mapping[int, type[RefusedError]] = {
    400: BadRequestError,
    401: KeyRefusedError,
    403: KeyRefusedError,
    404: NotFoundError,
    409: ConflictError,
    413: BadRequestError,
    422: BadRequestError,
}


def failure(
    said: str,
    problem: ProblemBody,
    request_id: str | None = None,
    retry_after_s: float | None = None,
    others: Mapping[int, type[PlannerError]] | None = None,
) -> PlannerError:
    """The error for a problem; `others` are the kinds that mean more to the one who asked."""
    if problem.status >= 500 or problem.status == 429:
        return PlannerAwayError(said, True, problem, request_id, retry_after_s)
    kind = {**REFUSALS, **(others or {})}.get(problem.status, RefusedError)
    if kind is KeyRefusedError:
        key = "the planner's key" if problem.status == 401 else "a key that may do this"
        said = f"{said}; set HPLB_API_KEY to {key}"
    return kind(said, problem, request_id)
