"""A transaction, and what can become of it, in the service's own words."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Engine, Select, func, orm, select
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as NoConnectionError

from profiles.errors import HplbError
from solver.plans import Plan

Row = TypeVar("Row")


class StoreError(HplbError):
    """The database cannot be used: says which and why."""


class ConflictError(Exception):
    """Another transaction stored the same row first: what was read before is out of date."""


class UnavailableError(Exception):
    """The database does not answer; nothing was changed."""


class Session(orm.Session):
    """One transaction: what every function of the store works on.

    `plans` are those of its database that were loaded last, by id: they never change.
    """

    def __init__(self, engine: Engine, plans: dict[str, Plan]) -> None:
        super().__init__(engine, expire_on_commit=False)
        self.plans = plans

    def page(self, rows: Select[Row], limit: int, offset: int) -> tuple[Sequence[Row], int]:
        """Some rows of a query in order, and how many it has in all."""
        counted = select(func.count()).select_from(rows.order_by(None).subquery())
        found = self.scalars(rows.limit(limit).offset(offset)).all()
        return found, self.scalar(counted) or 0


@contextmanager
def own_errors() -> Iterator[None]:
    """What the rest of the service has to know of a failed transaction."""
    try:
        yield
    except IntegrityError as error:
        raise ConflictError(first_line(error)) from error
    except SQLAlchemyError as error:
        if not is_out_of_reach(error):
            raise
        raise UnavailableError(str(error)) from error


def is_out_of_reach(error: Exception) -> bool:
    """Whether it is the database that failed, not what was asked of it."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, OperationalError | InterfaceError | NoConnectionError)


def first_line(error: Exception) -> str:
    """What a driver says, in one line."""
    original = getattr(error, "orig", None) or error
    return str(original).strip().partition("\n")[0]
