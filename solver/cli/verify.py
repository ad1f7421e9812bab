"""`hplb verify PLAN.json`: anyone's plan, checked with code the solvers do not share."""

import json
from pathlib import Path
from typing import Annotated

import typer

from profiles.console import clear_errors
from solver.cli.flags import read_text
from solver.plans import Plan
from solver.verify import unchecked_bounds, verify


@clear_errors()
def verify_command(
    plan: Annotated[Path, typer.Argument(help="A plan's JSON.")],
) -> None:
    """Check a plan with code the solvers do not share; exit 1 if it does not hold."""
    text = read_text(plan)
    Plan.parse(text, str(plan))
    checked = json.loads(text)
    faults = verify(checked)
    for fault in faults:
        typer.echo(fault)
    if faults:
        raise typer.Exit(1)
    typer.echo("the plan keeps every promise that was checked")
    taken = unchecked_bounds(checked)
    if taken:
        typer.echo(f"the bounds of {taken} layers rest on proofs that are not recomputed here")
