"""Every error leaves as an RFC 9457 problem: `application/problem+json`, bad fields by name."""

import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api.client.bodies import FieldError, ProblemBody
from api.field_errors import field_errors, shown
from api.store.session import UnavailableError
from profiles.errors import HplbError

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
DISK_FULL = re.compile("disk is full|no space left on device|disk quota", re.IGNORECASE)
"""As SQLite, PostgreSQL and the system say it."""


class Problem(HTTPException):
    """Raise to answer with a problem; `fields` maps a field to what is wrong with it."""

    def __init__(
        self,
        status: int,
        detail: str,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.fields = [FieldError(field=f, message=m) for f, m in (fields or {}).items()]


def not_found(what: str, name: str) -> Problem:
    """404 for a thing that is not stored."""
    return Problem(404, f"no {what} {name!r}")


def bad_field(field: str, message: str) -> Problem:
    """422 for one field."""
    return Problem(422, f"{field}: {message}", {field: message})


def invalid(errors: Sequence[FieldError]) -> Problem:
    """422 for fields."""
    problem = Problem(422, summary(errors))
    problem.fields = list(errors)
    return problem


def summary(errors: Sequence[FieldError]) -> str:
    """The first few of them on one line."""
    return "; ".join(f"{e.field}: {e.message}" for e in errors[:5])


def as_problem(error: Exception) -> Problem:
    """What an error is answered with, wherever it came up."""
    match error:
        case Problem():
            return error
        case HTTPException():
            return Problem(error.status_code, str(error.detail), headers=error.headers)
        case HplbError():
            field, _colon, rest = str(error).partition(": ")
            return Problem(422, str(error), {field: rest} if rest and " " not in field else None)
        case UnavailableError():
            said = str(error).partition("\n")[0]
            log.error("database_error", error=said)
            full = any(DISK_FULL.search(str(each)) for each in _with_causes(error))
            why = "the database's disk is full" if full else "the database does not answer"
            return Problem(503, f"{why}; nothing was changed", headers={"Retry-After": "1"})
        case _:
            log.error("unexpected_error", error=repr(error), exc_info=error)
            return Problem(500, "an unexpected error; the server's log has the details")


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it: SQLite's full disk ends a transaction, which fails by that."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def body_of(problem: Problem) -> ProblemBody:
    """A problem in RFC 9457's form."""
    return _body(problem.status_code, str(problem.detail), problem.fields)


def problem_response(
    status: int,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response itself, for where no exception can be raised."""
    body = _body(status, detail, errors).model_dump_json(exclude_none=True)
    return Response(body, status, headers, MEDIA_TYPE)


def _body(status: int, detail: str, errors: Sequence[FieldError]) -> ProblemBody:
    told = [FieldError(field=shown(e.field), message=shown(e.message)) for e in errors]
    return ProblemBody(
        title=HTTPStatus(status).phrase, status=status, detail=shown(detail), errors=told or None
    )


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` for the problems a route may answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Answer every kind of error that is foreseen with a problem; `api.request_log`, all others."""
    for kind in (HTTPException, HplbError, UnavailableError):
        app.add_exception_handler(kind, lambda _, error: answer_to(error))
    app.add_exception_handler(RequestValidationError, _invalid)


def answer_to(error: Exception) -> Response:
    """The response to an error, whichever."""
    problem = as_problem(error)
    detail = str(problem.detail)
    return problem_response(problem.status_code, detail, problem.fields, problem.headers)


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = field_errors(error.errors(), error.body)
    return problem_response(422, summary(errors), errors)
