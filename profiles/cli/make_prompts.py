"""`hplb profiles prompts`: generated tasks as a file to measure a model on."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, get_args

import typer

from profiles.cli.console import clear_errors, fail
from profiles.cli.flags import AsJson, Model, check_file, whole_numbers
from profiles.cli.progress import shown, timed
from profiles.tasks.haystack import Split
from profiles.tasks.prompts import generated, write
from profiles.tasks.ruler import TASKS


@clear_errors()
def prompts_command(
    model: Model,
    contexts: Annotated[str, typer.Option(help="Tokens of the prompts, as in 1024,4096.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write, JSON lines.")],
    tasks: Annotated[str, typer.Option(help="RULER's tasks, comma-separated, or all.")] = "all",
    prompts: Annotated[int, typer.Option(min=1, help="Prompts of a task at a context.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the first prompt of each.")] = 0,
    split: Annotated[
        str, typer.Option(help="Whose text surrounds them: train or held_out.")
    ] = "train",
    as_json: AsJson = False,
) -> None:
    """Generate prompts of RULER's thirteen task types, counted in the model's own tokens.

    Example: hplb profiles prompts --model smollm2-135m --contexts 1024,2048 -o prompts.jsonl
    """
    check_file("--out", out)
    if find_spec("transformers") is None:
        fail("hplb profiles prompts needs transformers: pip install hplb[executor]")
    sizes = sorted(set(whole_numbers("--contexts", contexts)))
    if split not in get_args(Split):
        fail(f"--split {split!r}: must be one of {', '.join(get_args(Split))}")
    whose: Split = "train" if split == "train" else "held_out"
    named = list(TASKS) if tasks == "all" else [task.strip() for task in tasks.split(",")]

    # transformers takes seconds to load: `hplb --help` does without.
    from profiles.measuring.loading import counter

    count = counter(model)
    with shown("generating", " prompts") as show:
        made = generated(named, sizes, prompts, seed, count, whose, timed(show))
    write(out, made)
    if as_json:
        told = {"path": str(out), "prompts": len(made), "tasks": named, "contexts": sizes}
        typer.echo(json.dumps({**told, "split": split}))
    else:
        typer.echo(f"{out}: {len(made)} prompts of {len(named)} tasks, {split} text")
