"""`hplb profiles measure`: what the heads of a real model need."""

import warnings
from pathlib import Path
from typing import Annotated

import typer

from profiles.cli.console import clear_errors, fail
from profiles.cli.flags import AsJson, Data, Model, ProfileOut, check_file, whole_numbers
from profiles.cli.progress import shown
from profiles.model import ModelProfile
from profiles.selection import MOST_ROWS, Sampled, Selection


@clear_errors()
def measure_command(
    model: Model,
    data: Data,
    contexts: Annotated[str, typer.Option(help="Tokens, as in 1024,4096.")],
    out: ProfileOut,
    block_tokens: Annotated[
        int, typer.Option(help="Query rows that share a list: 16, 32, 64 or 128.")
    ] = 64,
    piece_tokens: Annotated[
        int | None, typer.Option(help="Keys of a list's piece, which divide a block; a block.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Query rows looked at in each prompt.")] = 64,
    prompts: Annotated[
        int | None, typer.Option(help="Most prompts of a task at a context; all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the rows.")] = 0,
    selection: Annotated[
        str,
        typer.Option(
            help="How the executor chooses: sampled, pooled, vertical_slash or sink_local."
        ),
    ] = "sampled",
    sample_rows: Annotated[
        int | None, typer.Option(help="Rows of a query block that sampled scores by; 8.")
    ] = None,
    sink_tokens: Annotated[
        int | None, typer.Option(help="First tokens that are always in; one piece.")
    ] = None,
    local_tokens: Annotated[
        int | None, typer.Option(help="Nearest tokens always in the oracle's lists; one block.")
    ] = None,
    gradients: Annotated[
        bool,
        typer.Option(help="Errors weighed by the loss' gradient too, at the shortest context."),
    ] = False,
    name: Annotated[str | None, typer.Option(help="The profile's name; the model's.")] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Where finished prompts are kept; beside the profile.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32 on the CPU, bfloat16 on CUDA.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads to compute with; all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure recovery curves of a transformers model's heads; goes on where it was stopped.

    Example: hplb profiles measure --model smollm2-135m --data prompts.jsonl --contexts 1024,2048
    -o profile.json
    """
    check_file("--out", out)
    state = state_dir if state_dir is not None else out.with_name(f"{out.name}.parts")

    # What nothing but this command needs.
    from profiles.measuring import measure
    from profiles.measuring.parts import Parts

    try:
        with warnings.catch_warnings(), shown("loading", " layers") as show:
            warnings.showwarning = lambda message, *_: typer.echo(message, err=True)
            profile = measure(
                model,
                data,
                tuple(whole_numbers("--contexts", contexts)),
                block_tokens=block_tokens,
                piece_tokens=piece_tokens,
                rows=rows,
                prompts=prompts,
                seed=seed,
                selection=_selection(selection, sample_rows),
                sink_tokens=sink_tokens,
                local_tokens=local_tokens,
                gradients=gradients,
                name=name,
                state=state,
                device=device,
                dtype=dtype,
                threads=threads,
                progress=show,
            )
    except KeyboardInterrupt:
        typer.echo(f"{state}: the same command goes on from here", err=True)
        raise
    profile.save(out)
    Parts(state).remove()
    typer.echo(profile.model_dump_json() if as_json else _in_words(profile, out))


def _selection(kind: str, sample_rows: int | None) -> str | Selection:
    if sample_rows is None:
        return kind
    if kind != "sampled":
        fail(f"--sample-rows: --selection {kind} samples none")
    if not 1 <= sample_rows <= MOST_ROWS:
        fail(f"--sample-rows: {sample_rows} must be from 1 to {MOST_ROWS}")
    return Sampled(rows=sample_rows)


def _in_words(profile: ModelProfile, out: Path) -> str:
    assert profile.measurement is not None
    count = sum(profile.measurement.prompts.values())
    return (
        f"{out}: {profile.name}, {profile.architecture.layers} layers x "
        f"{profile.architecture.query_heads} heads, {count} prompts in "
        f"{profile.measurement.seconds:,.0f} s"
    )
