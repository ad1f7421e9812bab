"""`hplb loss`: what a plan's budgets cost a model on held-out text."""

import json
from pathlib import Path
from typing import Annotated

import typer

from executor.cli import flags
from profiles.cli.console import clear_errors
from profiles.cli.flags import AsJson, Model
from profiles.cli.progress import shown
from solver.plans import Plan


@clear_errors()
def loss_command(
    model: Model,
    plan: flags.Plan,
    text: Annotated[
        Path | None, typer.Option(help="A file or a folder; the library's held-out docstrings.")
    ] = None,
    windows: Annotated[
        int, typer.Option(min=1, help="At most so many windows of the plan's context.")
    ] = 1,
    threads: flags.Threads = None,
    dtype: flags.Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Score held-out text by a plan's budgets and by dense attention: nats a token.

    Example: hplb loss --model smollm2-135m --plan plan.json
    """
    made = Plan.load(plan)

    from executor.evaluation.plan_loss import plan_loss  # loads torch

    loaded = flags.load_model(model, dtype, threads)
    with shown("scoring") as show:
        found = plan_loss(loaded, made, text, windows, show)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    typer.echo(
        f"{found.loss:.4f} nats a token at {100 * found.density:.1f} % of dense attention's pairs, "
        f"dense {found.dense_loss:.4f}: {found.over_dense:+.4f} (the last {found.scored_tokens:,} "
        f"tokens of {found.windows} x {found.context_tokens:,})"
    )
