"""`hplb serve`."""

from typing import Annotated

import typer
from pydantic import ValidationError
from sqlalchemy.engine import make_url

from api.serving import serve as serve_until_stopped
from api.serving import stop_on_terminate
from api.settings import Settings
from profiles.console import clear_errors, fail
from profiles.model import describe

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The service."""


@app.command("serve")
@clear_errors()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    database_url: Annotated[
        str | None,
        typer.Option(help="SQLAlchemy URL; HPLB_DATABASE_URL, else ./hplb.db.", show_default=False),
    ] = None,
) -> None:
    """Serve plans over HTTP. Any address but loopback needs HPLB_API_KEY."""
    try:
        settings = Settings() if database_url is None else Settings(database_url=database_url)
    except ValidationError as error:
        fail(f"settings (HPLB_...): {describe(error)}")
    stop_on_terminate()
    database = make_url(settings.database_url).render_as_string(hide_password=True)
    serve_until_stopped(
        host,
        port,
        settings,
        lambda url: typer.echo(f"hplb serves {url} (docs: {url}/docs, database: {database})"),
    )
