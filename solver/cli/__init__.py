"""`hplb plan`, `compare`, `verify`: planning without a server."""

import typer

from solver.cli.compare import compare_command
from solver.cli.plan import plan_command
from solver.cli.verify import verify_command

app = typer.Typer()
app.command("plan")(plan_command)
app.command("compare")(compare_command)
app.command("verify")(verify_command)
