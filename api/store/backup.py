"""A database as a file of JSON lines, gzipped: of SQLite and PostgreSQL alike, and of old schemas.

The first line says what it is and of which schema, then come the tables' rows, each as a list of
its columns, and last how many there were: a file that was cut off is seen to be.
"""

import base64
import gzip
import json
import os
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from alembic.migration import MigrationContext
from sqlalchemy import Connection, LargeBinary, MetaData, Table, func, insert, select, text
from sqlalchemy.exc import DatabaseError

from api.store.database import Database, upgrade
from api.store.session import StoreError, first_line
from profiles.time_left import Show

FORMAT = "hplb backup 1"
ROWS_AT_ONCE = 500
VERSIONS = "alembic_version"


def back_up(database: Database, path: Path, show: Show = lambda *_: None) -> Counter[str]:
    """Write all that is stored, as it was at one moment, while others go on writing.

    `show` is told of rows. Returns the number of rows by table. Raises StoreError where the file
    cannot be written, UnavailableError.
    """
    counts: Counter[str] = Counter()
    with database.read() as session, _written(path) as file:
        connection = session.connection()
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        revision = MigrationContext.configure(connection).get_current_revision()
        _line(file, {"format": FORMAT, "schema": revision})
        tables = _tables(connection)
        whole = sum(connection.scalar(select(func.count()).select_from(t)) or 0 for t in tables)
        for table in tables:
            _line(file, {"table": table.name, "columns": [c.name for c in table.columns]})
            binary = _is_binary(table)
            rows = select(table).execution_options(yield_per=ROWS_AT_ONCE)
            for row in connection.execute(rows):
                _line(file, [_text(v) if b else v for v, b in zip(row, binary, strict=True)])
                counts[table.name] += 1
                if counts[table.name] % ROWS_AT_ONCE == 0:
                    show(counts.total(), whole, table.name)
        _line(file, {"rows": counts.total()})
    return counts


def restore(database: Database, path: Path, show: Show = lambda *_: None) -> Counter[str]:
    """Put a backup into an empty database, and bring its schema up to date; all of it or nothing.

    `show` is told of the file's megabytes. Returns the number of rows by table. Raises StoreError
    for a file that is no backup, damaged, cut off or of a later version, and for a database that is
    not empty; UnavailableError.
    """
    counts: Counter[str] = Counter()
    with database.write() as session:
        connection = session.connection()
        holding = [t.name for t in _tables(connection) if _holds_rows(connection, t)]
        if holding:
            raise StoreError(
                f"the database holds rows already ({', '.join(holding)}): restore into an empty one"
            )
        try:
            lines = _read(path, show)
            head = next(lines, None)
            if not isinstance(head, dict) or head.get("format") != FORMAT:
                raise StoreError(f"{path}: no backup by hplb")
            _make_schema(connection, str(head["schema"]), path)
            _insert(connection, lines, counts, path)
        except (KeyError, TypeError, ValueError, EOFError, zlib.error) as error:
            raise StoreError(f"{path}: damaged: {error}") from None
        except DatabaseError as error:
            raise StoreError(f"{path}: does not fit its schema: {first_line(error)}") from None
        upgrade(connection)
    return counts


def _insert(connection: Connection, lines: Iterator[Any], counts: Counter[str], path: Path) -> None:
    tables = {table.name: table for table in _tables(connection)}
    table: Table | None = None
    columns: list[str] = []
    binary: set[str] = set()
    rows: list[dict[str, Any]] = []

    def flush() -> None:
        if table is not None and rows:
            connection.execute(insert(table), rows)
            counts[table.name] += len(rows)
            rows.clear()

    for line in lines:
        if isinstance(line, list):
            row = dict(zip(columns, line, strict=True))
            rows.append({name: _bytes(v) if name in binary else v for name, v in row.items()})
            if len(rows) >= ROWS_AT_ONCE:
                flush()
            continue
        flush()
        if "rows" in line:
            if line["rows"] != counts.total():
                raise StoreError(f"{path}: has {counts.total()} rows, not {line['rows']}")
            _go_on_counting(connection, tables)
            return
        table, columns = tables[line["table"]], line["columns"]
        kinds = zip(table.columns, _is_binary(table), strict=True)
        binary = {column.name for column, is_binary in kinds if is_binary}
    raise StoreError(f"{path}: cut off")


def _make_schema(connection: Connection, revision: str, path: Path) -> None:
    """The empty tables of the backup's schema, in place of the newest."""
    metadata = MetaData()
    metadata.reflect(connection)
    metadata.drop_all(connection)
    try:
        upgrade(connection, revision)
    except Exception:
        raise StoreError(f"{path}: was made by a later version of hplb ({revision})") from None


def _go_on_counting(connection: Connection, tables: dict[str, Table]) -> None:
    """PostgreSQL numbers new rows by a counter of its own, which was told of none of these."""
    if connection.dialect.name != "postgresql":
        return
    for table in tables.values():
        column = table.autoincrement_column
        if column is not None and column.server_default is not None:
            counter = func.pg_get_serial_sequence(table.name, column.name)
            last = select(func.max(column)).scalar_subquery()
            connection.execute(
                select(func.setval(counter, func.coalesce(last, 1), last.is_not(None)))
            )


def _tables(connection: Connection) -> list[Table]:
    """As they are there, what is referred to first."""
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != VERSIONS]


def _holds_rows(connection: Connection, table: Table) -> bool:
    return connection.execute(select(table).limit(1)).first() is not None


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value, validate=True)


def _is_binary(table: Table) -> list[bool]:
    return [isinstance(column.type, LargeBinary) for column in table.columns]


@contextmanager
def _written(path: Path) -> Iterator[IO[str]]:
    """A file that is there only once it is whole; for its owner alone."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as whole:
                with gzip.open(whole, "wt", encoding="utf-8") as file:
                    yield file
                whole.flush()
                os.fsync(whole.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from None


def _line(file: IO[str], value: Any) -> None:
    file.write(json.dumps(value, separators=(",", ":")) + "\n")


def _read(path: Path, show: Show) -> Iterator[Any]:
    """Its lines. Raises StoreError where it cannot be read."""
    try:
        size_mb = path.stat().st_size / 1e6
        with path.open("rb") as packed, gzip.open(packed, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file):
                if number % ROWS_AT_ONCE == 0:
                    show(packed.tell() / 1e6, size_mb, "read")
                yield json.loads(line)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from None
