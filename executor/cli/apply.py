"""`hplb apply`: a plan written into a model's weights, or taken out of them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profiles.cli.console import clear_errors, fail
from profiles.cli.flags import AsJson, Model, check_folders
from profiles.cli.progress import shown, timed
from solver.plans import Plan

if TYPE_CHECKING:
    from executor.weights.apply import Applied
    from executor.weights.check import Compared
    from executor.weights.execution_map import ExecutionMap


@clear_errors()
def apply_command(
    model: Model,
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
    as_json: AsJson = False,
) -> None:
    """Write a plan into a model's weights, so that a stock engine's ranks hold its heads.

    Rows and columns of the attention move, nothing else; hplb_plan.json, beside the weights, says
    which slot is which head. A model that carries a plan is moved to this one. To make a plan live
    on nodes is to deploy it: PUT /deployments.

    Example: hplb apply --model smollm2-135m --plan plan.json -o planned --check
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
            was = weights.undo(folder, out, timed(show))
            said = f"{out}: as it was before plan {was.plan[:12]}, bit for bit"
            typer.echo(json.dumps({"path": str(out), "undone": was.plan}) if as_json else said)
            return
        written = weights.apply(folder, made, out, check, timed(show))
    if as_json:
        typer.echo(json.dumps(_facts(written, out)))
    else:
        typer.echo("\n".join([*_written(written.map, out), *_checked(written.compared)]))


def _facts(written: "Applied", out: Path) -> dict[str, Any]:
    made, compared = written.map, written.compared
    return {
        "path": str(out),
        "plan": made.plan,
        "map": made.hash,
        "layout": made.layout.id,
        "ranks": made.layout.ranks,
        "slots": made.layout.slots,
        "needs_map": made.layout.needs_map,
        "checked": None if compared is None else asdict(compared),
    }


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
