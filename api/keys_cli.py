"""`hplb keys`: who may do what, by keys of their own; a secret is shown once, when it is made."""

import json
import re
import secrets
import time
from typing import Annotated

import typer
from rich.table import Table

from api.opening import DatabaseUrl, opened
from api.store import key_store
from api.store.session import Session
from api.store.tables import StoredKey
from profiles.cli.console import clear_errors, console, fail
from profiles.cli.flags import AsJson
from profiles.model import NAME_PATTERN

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="What the key is called: letters, digits, ._-")]


@app.callback()
def _group() -> None:
    """Keys of the service: made, listed, rotated, revoked.

    Example: hplb keys create gpu-1 --scopes node --node-id gpu-1
    """


@app.command("create")
@clear_errors()
def create(
    name: Name,
    scopes: Annotated[
        str,
        typer.Option(
            help="read; plan, operate (both read too); node. Comma-separated.",
            autocompletion=lambda: _scopes(),
        ),
    ],
    node_id: Annotated[
        str | None, typer.Option(help="Of scope node: the only node it may act as.")
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print its secret; a service with any key asks everyone for one.

    Example: hplb keys create dashboard --scopes read
    """
    for each, what in ((name, "NAME"), (node_id, "--node-id")):
        if each is not None and not re.fullmatch(NAME_PATTERN, each):
            fail(f"{what}: {each!r} is no name: letters, digits, ._-, at most 128")
    asked = sorted({each.strip() for each in scopes.split(",")})
    known = _scopes()
    unknown = next((each for each in asked if each not in known), None)
    if unknown is not None:
        fail(f"--scopes: {unknown!r} is none of {', '.join(known)}")
    if node_id is not None and "node" not in asked:
        fail("--node-id: is for keys of scope node")
    secret = _secret()
    with opened(database_url) as database, database.write() as session:
        if key_store.find(session, name) is not None:
            fail(f"key {name!r} exists; rotate or revoke it")
        session.add(
            StoredKey(
                name=name,
                digest=key_store.digest_of(secret),
                scopes=asked,
                node=node_id,
                made_at=time.time(),
            )
        )
    _say(name, secret, as_json)


@app.command("list")
@clear_errors()
def show(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """The keys: names, scopes, nodes, when they were made.

    Example: hplb keys list
    """
    with opened(database_url) as database, database.read() as session:
        keys = key_store.every(session)
    if as_json:
        shown = ("name", "scopes", "node", "made_at")
        typer.echo(json.dumps([{name: getattr(key, name) for name in shown} for key in keys]))
        return
    table = Table("name", "scopes", "node", "made")
    for key in keys:
        made = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(key.made_at))
        table.add_row(key.name, ", ".join(key.scopes), key.node or "any", made)
    console.print(table)


@app.command("rotate")
@clear_errors()
def rotate(name: Name, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Give a key a new secret and print it; the old one is refused within seconds.

    Example: hplb keys rotate gpu-1
    """
    secret = _secret()
    with opened(database_url) as database, database.write() as session:
        key = _found(session, name)
        key.digest, key.made_at = key_store.digest_of(secret), time.time()
    _say(name, secret, as_json)


@app.command("revoke")
@clear_errors()
def revoke(name: Name, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Refuse a key from now on, within seconds.

    Example: hplb keys revoke gpu-1
    """
    with opened(database_url) as database, database.write() as session:
        session.delete(_found(session, name))
    if as_json:
        typer.echo(json.dumps({"revoked": name}))


def _say(name: str, secret: str, as_json: bool) -> None:
    typer.echo(json.dumps({"name": name, "secret": secret}) if as_json else secret)


def _scopes() -> list[str]:
    # FastAPI takes a second to load: other commands do without.
    from api.auth import INCLUDES

    return list(INCLUDES)


def _secret() -> str:
    """256 random bits, recognisable where they should not stand."""
    return f"hplb_{secrets.token_urlsafe(32)}"


def _found(session: Session, name: str) -> StoredKey:
    key = key_store.find(session, name)
    if key is None:
        fail(f"no key {name!r}")
    return key
