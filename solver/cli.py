"""`hplb plan`, `hplb compare`, `hplb verify`: planning without a server."""

import typer

from solver.commands.compare import compare_command
from solver.commands.plan import plan_command
from solver.commands.verify import verify_command

app = typer.Typer()
app.command("plan")(plan_command)
app.command("compare")(compare_command)
app.command("verify")(verify_command)
