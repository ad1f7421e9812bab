"""`hplb verify PLAN.json`: anyone's plan, checked with code the solvers do not share."""

import json
from pathlib import Path
from typing import Annotated

import typer

from profiles.console import clear_errors
from solver.options import RequestError
from solver.plan import Plan
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


def read_text(path: Path) -> str:
    """A file's text; what is wrong with it names the file."""
    try:
        return path.read_text()
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RequestError(f"{path}: is not text, so no JSON") from None
