"""A transaction, and what can become of it, in the service's own words."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar, cast

from sqlalchemy import Engine, Executable, Select, Table, func, inspect, orm, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as NoConnectionError
from sqlalchemy.orm import DeclarativeBase

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

    def put(self, row: DeclarativeBase) -> None:
        """Write a row in place of what has its key, in one statement.

        For what is asked for much: `merge` reads the other row first. The session does not know it.
        """
        kind = type(row)
        values = {column.key: getattr(row, column.key) for column in inspect(kind).column_attrs}
        self.execute(_putting(kind, self.get_bind().dialect.name), values)

    def page(self, rows: Select[Row], limit: int, offset: int) -> tuple[Sequence[Row], int]:
        """Some rows of a query in order, and how many it has in all."""
        counted = select(func.count()).select_from(rows.order_by(None).subquery())
        found = self.scalars(rows.limit(limit).offset(offset)).all()
        return found, self.scalar(counted) or 0


@lru_cache
def _putting(kind: type[DeclarativeBase], dialect: str) -> Executable:
    """SQLite and PostgreSQL have the same words for it, each of its own."""
    table = cast(Table, kind.__table__)
    insert = sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
    keys = [column.name for column in table.primary_key]
    others = {name: column for name, column in insert.excluded.items() if name not in keys}
    return insert.on_conflict_do_update(index_elements=keys, set_=others)


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
