"""`hplb keys`: who may do what, by keys of their own; a secret is shown once, when it is made."""

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.table import Table

from api.auth import INCLUDES
from api.settings import Settings
from api.store import key_store
from api.store.database import Database
from api.store.session import Session
from api.store.tables import StoredKey
from profiles.cli.console import clear_errors, console, fail
from profiles.model import NAME_PATTERN

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="What the key is called: letters, digits, ._-")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        help="The service's database: SQLAlchemy URL; HPLB_DATABASE_URL, else ./hplb.db.",
        show_default=False,
    ),
]


@app.callback()
def _group() -> None:
    """Keys of the service: made, listed, rotated, revoked."""


@app.command("create")
@clear_errors()
def create(
    name: Name,
    scope: Annotated[
        list[str],
        typer.Option(help="read; plan, operate (both read too); node. Again for several."),
    ],
    node: Annotated[
        str | None, typer.Option(help="Of scope node: the only node it may act as.")
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Make a key and print its secret; a service with any key asks everyone for one."""
    for each, what in ((name, "NAME"), (node, "--node")):
        if each is not None and not re.fullmatch(NAME_PATTERN, each):
            fail(f"{what}: {each!r} is no name: letters, digits, ._-, at most 128")
    unknown = next((each for each in scope if each not in INCLUDES), None)
    if unknown is not None:
        fail(f"--scope: {unknown!r} is none of {', '.join(INCLUDES)}")
    if node is not None and "node" not in scope:
        fail("--node: is for keys of scope node")
    secret = _secret()
    with _opened(database_url) as database, database.write() as session:
        if key_store.find(session, name) is not None:
            fail(f"key {name!r} exists; rotate or revoke it")
        session.add(
            StoredKey(
                name=name,
                digest=key_store.digest_of(secret),
                scopes=sorted(set(scope)),
                node=node,
                made_at=time.time(),
            )
        )
    typer.echo(secret)


@app.command("list")
@clear_errors()
def show(database_url: DatabaseUrl = None) -> None:
    """The keys: names, scopes, nodes, when they were made."""
    table = Table("name", "scopes", "node", "made")
    with _opened(database_url) as database, database.read() as session:
        for key in key_store.every(session):
            made = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(key.made_at))
            table.add_row(key.name, ", ".join(key.scopes), key.node or "any", made)
    console.print(table)


@app.command("rotate")
@clear_errors()
def rotate(name: Name, database_url: DatabaseUrl = None) -> None:
    """Give a key a new secret and print it; the old one is refused within seconds."""
    secret = _secret()
    with _opened(database_url) as database, database.write() as session:
        key = _found(session, name)
        key.digest, key.made_at = key_store.digest_of(secret), time.time()
    typer.echo(secret)


@app.command("revoke")
@clear_errors()
def revoke(name: Name, database_url: DatabaseUrl = None) -> None:
    """Refuse a key from now on, within seconds."""
    with _opened(database_url) as database, database.write() as session:
        session.delete(_found(session, name))


def _secret() -> str:
    """256 random bits, recognisable where they should not stand."""
    return f"hplb_{secrets.token_urlsafe(32)}"


@contextmanager
def _opened(url: str | None) -> Iterator[Database]:
    database = Database.open(url or Settings().database_url)
    try:
        yield database
    finally:
        database.close()


def _found(session: Session, name: str) -> StoredKey:
    key = key_store.find(session, name)
    if key is None:
        fail(f"no key {name!r}")
    return key
