"""`hplb profiles`: brought in, measured, listed, shown; `hplb models`: real models, fetched."""

import typer

from profiles.cli.importers import importing
from profiles.cli.make_prompts import prompts_command
from profiles.cli.measure import measure_command
from profiles.cli.models import models
from profiles.cli.show import list_command, show_command

app = typer.Typer(no_args_is_help=True)
commands = typer.Typer(
    no_args_is_help=True,
    help="Model profiles: what each head needs.\n\n"
    "Example: hplb profiles show smollm2-135m --plot recovery.png",
)
app.add_typer(commands, name="profiles")
app.add_typer(models, name="models")
commands.add_typer(importing, name="import")
commands.command("prompts")(prompts_command)
commands.command("measure")(measure_command)
commands.command("list")(list_command)
commands.command("show")(show_command)
