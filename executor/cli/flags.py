"""Flags of the commands that run a model, and the model that they name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiles.cli.flags import profile_names

if TYPE_CHECKING:
    from profiles.measuring.loading import Loaded

ItsProfile = Annotated[
    str,
    typer.Option(
        "--profile",
        "-p",
        help="The model's profile, by name or path.",
        autocompletion=profile_names,
    ),
]
Plan = Annotated[Path, typer.Option(help="The plan's JSON.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads to compute with; all.")]
Dtype = Annotated[str | None, typer.Option(help="float32 on the CPU, bfloat16 on CUDA.")]


def load_model(model: str, dtype: str | None, threads: int | None) -> "Loaded":
    """The model of `--model`, to compute in `Dtype` with as many `Threads`."""
    # torch takes seconds to load: `hplb --help` does without.
    import torch

    from executor.evaluation.loaded import load

    if threads is not None:
        torch.set_num_threads(threads)
    return load(model, dtype)
