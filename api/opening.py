"""The settings and the database that a command is given: what is wrong with them is one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from pydantic import ValidationError

from api.settings import Settings
from api.store.database import Database
from api.store.session import UnavailableError
from profiles.cli.console import fail
from profiles.errors import describe

DatabaseUrl = Annotated[
    str | None,
    typer.Option(help="SQLAlchemy URL; HPLB_DATABASE_URL, else ./hplb.db.", show_default=False),
]


@contextmanager
def opened(database_url: str | None) -> Iterator[Database]:
    """The database at a URL, or the settings'."""
    database = Database.open(settings_with(database_url).database_url)
    try:
        yield database
    except UnavailableError as error:
        fail(f"the database does not answer: {error}")
    finally:
        database.close()


def settings_with(database_url: str | None) -> Settings:
    """The environment's settings, their database another one where a URL is given."""
    try:
        return Settings() if database_url is None else Settings(database_url=database_url)
    except ValidationError as error:
        fail(f"settings (HPLB_...): {describe(error)}")
