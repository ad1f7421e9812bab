"""Flags of the commands that run a model, and the model that they name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from solver.cli.flags import check_folders
from solver.request import RequestError

if TYPE_CHECKING:
    from executor.evaluation.loaded import Loaded

Model = Annotated[str, typer.Option(help="A folder of transformers, a fetched model or reference.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads to compute with; all.")]
Dtype = Annotated[str | None, typer.Option(help="float32 on the CPU, bfloat16 on CUDA.")]


def load_model(model: str, dtype: str | None, threads: int | None) -> "Loaded":
    """The model of `Model`, to compute in `Dtype` with as many `Threads`."""
    # torch takes seconds to load: `hplb --help` does without.
    import torch

    from executor.evaluation.loaded import load

    if threads is not None:
        torch.set_num_threads(threads)
    return load(model, dtype)


def check_file(flag: str, path: Path | None) -> None:
    """Refuse a path that no file can be written to before anything is computed for it."""
    check_folders(path)
    if path is not None and path.is_dir():
        raise RequestError(f"{flag} {path}: is a folder; name a file in it")
