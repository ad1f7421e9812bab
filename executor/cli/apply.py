"""`hplb apply`: a plan written into a model's weights, or taken out of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from executor.cli import flags
from profiles.cli.console import clear_errors, fail
from profiles.cli.progress import shown
from solver.cli.flags import check_folders
from solver.plans import Plan

if TYPE_CHECKING:
    from executor.weights.check import Compared
    from executor.weights.execution_map import ExecutionMap


@clear_errors()
def apply_command(
    model: flags.Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write; a new one.")],
    plan: Annotated[
        Path | None, typer.Option(help="The plan's JSON, made with --slots unless it fits without.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Compare both models' logits on this machine, in float32."),
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Write the model as it was before its plan.")
    ] = False,
) -> None:
    """Write a plan into a model's weights, so that a stock engine's ranks hold its heads.

    Rows and columns of the attention move, nothing else; hplb_plan.json, beside the weights, says
    which slot is which head. To make a plan live on nodes is to deploy it: PUT /deployments.
    """
    if undo and (plan is not None or check):
        fail("--undo: takes no --plan and no --check; the model's folder says what it was")
    check_folders(out)
    made = None if plan is None else Plan.load(plan)
    if made is None and not undo:
        fail("--plan: is missing; or --undo takes the plan out of a model")

    # torch takes seconds to load: `hplb --help` does without.
    from executor.weights import apply as weights
    from profiles.measuring.loading import folder_of

    folder = folder_of(model)
    with shown("writing") as show:
        if made is None:
            was = weights.undo(folder, out, show)
            typer.echo(f"{out}: as it was before plan {was.plan[:12]}, bit for bit")
            return
        written = weights.apply(folder, made, out, check, show)
    typer.echo("\n".join([*_written(written.map, out), *_checked(written.compared)]))


def _written(made: "ExecutionMap", out: Path) -> list[str]:
    """What was written, and what slots without a head cost."""
    model, layout = made.architecture, made.layout
    now = layout.padded(model)
    lines = [
        f"{out}: plan {made.plan[:12]}, map {made.hash[:12]}, layout {layout.id[:12]}: "
        f"{layout.ranks} ranks of {layout.slots} KV and {layout.slots * layout.slot_heads} query "
        "slots"
    ]
    if now.kv_heads > model.kv_heads:
        width = model.hidden_size * model.head_dim * 2 * model.layers * model.item_bytes
        more = now.query_heads + now.kv_heads - model.query_heads - model.kv_heads
        lines.append(
            f"{now.query_heads} query and {now.kv_heads} KV heads where the model has "
            f"{model.query_heads} and {model.kv_heads}: {width * more / 1e6:,.1f} MB more weights "
            f"and {now.kv_heads / model.kv_heads:.2f} times the K/V of a token"
        )
    if layout.needs_map:
        lines.append(
            "heads are computed by several ranks: only with attention that reads hplb_plan.json"
        )
    return lines


def _checked(found: "Compared | None") -> list[str]:
    if found is None:
        return []
    return [
        f"checked: {found.prompt_tokens} tokens in two chunks and {found.decoded_tokens} decoded "
        f"alike; logits differ by at most {found.difference:.2g} of {found.largest:.3g}"
    ]
