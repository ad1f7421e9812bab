"""`hplb loss PLAN.json`: what a plan's budgets cost a model on held-out text."""

import json
from pathlib import Path
from typing import Annotated

import typer

from profiles.cli.console import clear_errors
from profiles.cli.progress import shown
from solver.plans import Plan


@clear_errors()
def loss_command(
    plan: Annotated[Path, typer.Argument(help="A plan's JSON.")],
    model: Annotated[
        str, typer.Option(help="A folder of transformers, a fetched model or reference.")
    ],
    text: Annotated[
        Path | None, typer.Option(help="A file or a folder; the library's held-out docstrings.")
    ] = None,
    windows: Annotated[
        int, typer.Option(min=1, help="At most so many windows of the plan's context.")
    ] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads to compute with; all.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 on the CPU, bfloat16 on CUDA.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Score held-out text by a plan's budgets and by dense attention: nats a token."""
    made = Plan.load(plan)

    # torch takes seconds to load: `hplb --help` does without.
    import torch

    from executor.evaluation.loaded import load
    from executor.evaluation.plan_loss import plan_loss

    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load(model, dtype)
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
