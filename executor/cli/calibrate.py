"""`hplb calibrate`: what a profile's errors cost its model's loss, written into the profile."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from executor.cli import flags
from profiles.catalogue import load_profile
from profiles.cli.console import clear_errors
from profiles.cli.flags import AsJson, Data, Model, ProfileOut, check_file, shares
from profiles.cli.progress import shown
from profiles.heads import CurvesForm
from profiles.model import ModelProfile
from solver.budgets.errors import BudgetError

if TYPE_CHECKING:
    from executor.evaluation.calibration import Calibrated


@clear_errors()
def calibrate_command(
    model: Model,
    profile: flags.ItsProfile,
    data: Data,
    out: ProfileOut,
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a prompt; the profile's shortest.")
    ] = None,
    densities: Annotated[
        str, typer.Option(help="Shares of dense attention's blocks, comma-separated.")
    ] = "0.18,0.3",
    windows: Annotated[
        int, typer.Option(min=2, help="Windows of the data that are read at every share.")
    ] = 6,
    threads: flags.Threads = None,
    dtype: flags.Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Find what a profile's errors cost its model's loss, so that plans can promise one.

    Example: hplb calibrate --model smollm2-135m -p profile.json --data other.jsonl -o profile.json
    """
    check_file("--out", out)
    known = load_profile(profile)
    curves = _curves(known)
    chosen = shares("--densities", densities)

    from executor.evaluation.calibration import calibrate, with_ratio  # loads torch

    loaded = flags.load_model(model, dtype, threads)
    with shown("calibrating") as show:
        found = calibrate(
            loaded,
            known,
            data,
            context or curves.context_tokens[0],
            chosen,
            windows,
            show,
        )
    with_ratio(known, found.per_error).save(out)
    typer.echo(json.dumps(_fields(found)) if as_json else _in_words(found, out))


def _curves(profile: ModelProfile) -> CurvesForm:
    """The form that has errors of outputs."""
    if not isinstance(profile.heads, CurvesForm) or profile.heads.output_error is None:
        raise BudgetError(
            f"--profile: {profile.name!r} has no output errors; measure it with "
            "`hplb profiles measure`"
        )
    return profile.heads


def _fields(found: "Calibrated") -> dict[str, object]:
    return {
        "loss_per_error": found.per_error.model_dump(),
        "points": [asdict(point) for point in found.points],
    }


def _in_words(found: "Calibrated", out: Path) -> str:
    ratio = found.per_error
    lines = [
        f"density {point.density:g}: summed error {point.error:.4g}, loss {point.nats:+.4f} nats a "
        f"token, {point.nats / point.error:.3g} per error"
        for point in found.points
    ]
    return "\n".join(
        [
            *lines,
            f"{out}: {ratio.mean:.3g} nats a token per unit of summed output error "
            f"({ratio.low:.3g} to {ratio.high:.3g}), {ratio.prompts} prompts of "
            f"{ratio.context_tokens:,} tokens",
        ]
    )
