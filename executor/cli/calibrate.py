"""`hplb calibrate`: what a profile's errors cost its model's loss, written into the profile."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiles.catalogue import load_profile
from profiles.cli.console import clear_errors
from profiles.cli.progress import shown
from profiles.heads import CurvesForm
from profiles.model import ModelProfile
from solver.budgets.errors import BudgetError
from solver.cli.flags import check_folders, shares
from solver.request import RequestError

if TYPE_CHECKING:
    from executor.evaluation.calibration import Calibrated


@clear_errors()
def calibrate_command(
    model: Annotated[
        str, typer.Option(help="A folder of transformers, a fetched model or reference.")
    ],
    profile: Annotated[
        str, typer.Option("--profile", "-p", help="Its profile with output errors, name or path.")
    ],
    data: Annotated[
        Path, typer.Option(help="Prompts as JSON lines, a plain text, or a folder of either.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The profile file to write; may be the same.")
    ],
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a prompt; the profile's shortest.")
    ] = None,
    density: Annotated[
        str, typer.Option(help="Shares of dense attention's blocks, comma-separated.")
    ] = "0.18,0.3",
    prompts: Annotated[
        int, typer.Option(min=2, help="Windows of the data that are read at every share.")
    ] = 6,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads to compute with; all.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 on the CPU, bfloat16 on CUDA.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Find what a profile's errors cost its model's loss, so that plans can promise one."""
    check_folders(out)
    if out.is_dir():
        raise RequestError(f"--out {out}: is a folder; name a file in it")
    known = load_profile(profile)
    curves = _curves(known)
    densities = shares(density)

    # torch takes seconds to load: `hplb --help` does without.
    import torch

    from executor.evaluation.calibration import calibrate, with_ratio
    from executor.evaluation.loaded import load

    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load(model, dtype)
    with shown("calibrating") as show:
        found = calibrate(
            loaded,
            known,
            data,
            context or curves.context_tokens[0],
            densities,
            prompts,
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
