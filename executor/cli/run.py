"""`hplb run`: a plan carried out on a prompt by processes on this machine, one a device."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from executor.barrier import Barrier
from executor.cli import flags
from profiles.cli.console import clear_errors, console, fail
from profiles.cli.flags import AsJson, Model
from profiles.cli.progress import shown, timed
from profiles.files import read_text
from solver.plans import Plan

if TYPE_CHECKING:
    from executor.engines.transformers.launch import Run


@clear_errors()
def run_command(
    model: Model,
    plan: flags.Plan,
    prompt: Annotated[str, typer.Option(help="What the model goes on with; @FILE reads one.")],
    tokens: Annotated[int, typer.Option(min=1, help="Go on with so many at most.")] = 32,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="And with KV groups in file order, padded; and without padding."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a plan on a model: a process for every device, under transformers' tensor parallelism.

    A plan made with --slots is written into the weights first, as hplb apply does; without, every
    process loads the heads that it computes and no padding. Shows the text and the seconds of
    attention of every layer and rank.

    Example: hplb run --model smollm2-135m --plan plan.json --prompt "The capital of France is"
    """
    plans = {"plan": Plan.load(plan)}

    # torch takes seconds to load: `hplb --help` does without.
    from transformers import AutoTokenizer

    from executor.engines.transformers.launch import run_ranks
    from executor.engines.transformers.rank import Request
    from executor.weights.apply import apply
    from executor.weights.slots import padded_contiguous
    from profiles.measuring.loading import folder_of

    folder = folder_of(model)
    if compare:
        asked = plans["plan"]
        plans["contiguous"] = padded_contiguous(asked)
        if asked.slots is not None:
            plans["unpadded"] = asked.model_copy(update={"slots": None}).identified()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        fail(f"--model {folder}: has no tokenizer: {error}")
    read = read_text(Path(prompt[1:])) if prompt.startswith("@") else prompt
    request = Request(tokenizer(read)["input_ids"], tokens)
    if not request.tokens:
        fail("--prompt: is empty")
    runs = {}
    with tempfile.TemporaryDirectory(prefix="hplb-run-") as scratch, shown("writing") as show:
        told = timed(show)
        for number, (name, made) in enumerate(plans.items()):
            padded = made.slots is not None
            out = Path(scratch) / name if padded else folder
            if padded:
                apply(folder, made, out, False, show)
            told(number, len(plans), f"running {name}")
            runs[name] = run_ranks(out, request, None if padded else made)
    texts = {name: tokenizer.decode(ran.tokens) for name, ran in runs.items()}
    if as_json:
        figures = {name: {**asdict(ran), "text": texts[name]} for name, ran in runs.items()}
        typer.echo(json.dumps(figures))
        return
    for name, ran in runs.items():
        typer.echo(f"{name}: {texts[name]}")
        console.print(_table(name, len(request.tokens), ran))


def _table(name: str, prompt_tokens: int, ran: "Run") -> Table:
    """Milliseconds of the prompt by layer and rank, and of all layers, decodes below."""
    ranks = len(ran.prompt_s[0])
    table = Table(title=f"{name}: attention, ms; {prompt_tokens} tokens, {len(ran.tokens)} more")
    for column in ("layer", *(f"rank {rank}" for rank in range(ranks)), "bubble"):
        table.add_column(column, justify="right")
    for layer, seconds in enumerate(ran.prompt_s):
        table.add_row(str(layer), *_row([seconds]))
    table.add_row("prompt", *_row(ran.prompt_s))
    table.add_row("decodes", *_row(ran.decode_s))
    return table


def _row(layers: list[list[float]]) -> list[str]:
    """A rank's sum over layers each, and the share that ranks wait at the layers' barriers."""
    found = Barrier.of(layers)
    return [*(f"{1000 * mine:.1f}" for mine in found.ranks_s), f"{100 * found.bubble:.1f} %"]
