"""`hplb profiles measure`: what the heads of a real model need."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from profiles.console import clear_errors, fail
from profiles.model import NAME_PATTERN, ModelProfile
from profiles.selection import (
    MOST_ROWS,
    POOLED,
    SAMPLED,
    Sampled,
    Selection,
    SinkLocal,
    VerticalSlash,
)


@clear_errors()
def measure(
    model: Annotated[str, typer.Option(help="A folder of transformers, a hub id, or reference.")],
    data: Annotated[Path, typer.Option(help="Prompts, one JSON object a line.")],
    contexts: Annotated[str, typer.Option(help="Tokens, as in 1024,4096.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The profile file to write.")],
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
        int | None, typer.Option(help="Rows of a query block that sampled scores by; 2.")
    ] = None,
    sink_tokens: Annotated[
        int | None, typer.Option(help="First tokens that are always in; one piece.")
    ] = None,
    local_tokens: Annotated[
        int | None, typer.Option(help="Nearest tokens always in the oracle's lists; one block.")
    ] = None,
    influence: Annotated[
        bool, typer.Option(help="How the loss moves with each head, at the shortest context.")
    ] = True,
    name: Annotated[str | None, typer.Option(help="The profile's name; the model's.")] = None,
    state: Annotated[
        Path | None, typer.Option(help="Where finished prompts are kept; beside the profile.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32 on the CPU, bfloat16 on CUDA.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profile as JSON.")] = False,
) -> None:
    """Measure recovery curves of a transformers model's heads; goes on where it was stopped."""
    if find_spec("torch") is None or find_spec("transformers") is None:
        fail("hplb profiles measure needs torch and transformers: pip install hplb[executor]")
    if not out.parent.is_dir():
        fail(f"-o {out}: there is no folder {out.parent}")
    if out.is_dir():
        fail(f"-o {out}: is a folder; name a file in it")
    if name is not None and not re.fullmatch(NAME_PATTERN, name):
        fail(f"--name: {name!r} must be letters, digits, '.', '_' or '-', at most 128")

    # torch takes seconds to load: `hplb --help` does without.
    from profiles.measuring.choices import Choices
    from profiles.measuring.parts import Parts
    from profiles.measuring.run import measure as measured
    from profiles.measuring.run import name_of
    from profiles.measuring.selector import installed_selector

    choices = Choices(
        model,
        data,
        _tokens(contexts),
        block_tokens,
        rows,
        prompts,
        seed,
        _selection(selection, sample_rows, sink_tokens, piece_tokens or block_tokens),
        sink_tokens,
        local_tokens,
        influence,
        device,
        dtype or ("bfloat16" if device.startswith("cuda") else "float32"),
        piece_tokens,
    )
    parts = Parts(state if state is not None else out.with_name(f"{out.name}.parts"))
    selector = installed_selector()
    if selector is None:
        typer.echo("no executor is installed: selected_recovery is left out", err=True)
    try:
        with _bar() as bar:
            task = bar.add_task("loading", total=None)
            profile = measured(
                choices,
                name or name_of(model),
                parts,
                selector,
                lambda done, total, what: bar.update(
                    task, completed=done, total=total, description=what
                ),
            )
    except KeyboardInterrupt:
        typer.echo(f"{parts.folder}: the same command goes on from here", err=True)
        raise
    profile.save(out)
    parts.remove()
    typer.echo(profile.model_dump_json() if as_json else _in_words(profile, out))


def _tokens(contexts: str) -> tuple[int, ...]:
    try:
        return tuple(int(context) for context in contexts.split(","))
    except ValueError:
        fail(f"--contexts: {contexts!r} must be whole numbers with commas between, as 1024,4096")


def _selection(
    kind: str, sample_rows: int | None, sink_tokens: int | None, piece_tokens: int
) -> Selection:
    if sample_rows is not None and kind != "sampled":
        fail(f"--sample-rows: --selection {kind} samples none")
    match kind:
        case "sampled":
            if sample_rows is None:
                return SAMPLED
            if not 1 <= sample_rows <= MOST_ROWS:
                fail(f"--sample-rows: {sample_rows} must be from 1 to {MOST_ROWS}")
            return Sampled(rows=sample_rows)
        case "pooled":
            return POOLED
        case "vertical_slash":
            return VerticalSlash()
        case "sink_local":
            return SinkLocal(sink_tokens=piece_tokens if sink_tokens is None else sink_tokens)
        case _:
            fail(f"--selection: {kind!r} is not one of sampled, pooled, vertical_slash, sink_local")


def _in_words(profile: ModelProfile, out: Path) -> str:
    assert profile.measurement is not None
    count = sum(profile.measurement.prompts.values())
    return (
        f"{out}: {profile.name}, {profile.architecture.layers} layers x "
        f"{profile.architecture.query_heads} heads, {count} prompts in "
        f"{profile.measurement.seconds:,.0f} s"
    )


def _bar() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
