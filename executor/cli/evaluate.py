"""`hplb evaluate`: what sparse attention costs in quality, methods side by side."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from executor.cli import flags
from executor.cli.apply import apply_command
from executor.cli.calibrate import calibrate_command
from executor.cli.loss import loss_command
from executor.cli.run import run_command
from profiles.catalogue import load_profile
from profiles.cli.console import clear_errors, console
from profiles.cli.flags import AsJson, Model, check_file, shares, whole_numbers
from profiles.cli.progress import shown
from profiles.files import write_atomically
from profiles.model import ModelProfile
from profiles.selection import POOLED, SAMPLED, Selection, VerticalSlash
from profiles.sizes import sizes_fault
from solver.budgets.options import FLOOR_TOKENS, Curve
from solver.cli.flags import DeviceType
from solver.request import BlockTokens, RequestError

if find_spec("torch") is None:
    raise ModuleNotFoundError("hplb evaluate needs torch: pip install hplb[executor]", name="torch")

if TYPE_CHECKING:
    from executor.evaluation.lines import Line
    from executor.evaluation.runner import Evaluated, Options
    from profiles.measuring.loading import Loaded

app = typer.Typer()
app.command("apply")(apply_command)
app.command("calibrate")(calibrate_command)
app.command("loss")(loss_command)
app.command("run")(run_command)
SELECTIONS: dict[str, Selection] = {
    chosen.kind: chosen for chosen in (SAMPLED, POOLED, VerticalSlash())
}
CURVES: dict[str, Curve] = {"selected": "selected", "oracle": "oracle"}
ALL = "all"


@app.command("evaluate")
@clear_errors()
def evaluate_command(
    model: Model,
    profile: flags.ItsProfile,
    out: Annotated[Path, typer.Option("--out", "-o", help="The results to write, JSON.")],
    methods: Annotated[
        list[str],
        typer.Option("--methods", "--policy", help="Methods to compare, comma-separated, or all."),
    ] = [ALL],  # noqa: B006 - typer's own, and never changed
    contexts: Annotated[str, typer.Option(help="Tokens of the samples, e.g. 1024,2048.")] = "2048",
    densities: Annotated[
        str,
        typer.Option(
            "--densities", "--density", help="Shares of dense attention's blocks, comma-separated."
        ),
    ] = "0.1,0.2,0.3,0.5",
    samples: Annotated[int, typer.Option(help="Samples of every task.")] = 20,
    tasks: Annotated[str, typer.Option(help="RULER's tasks, comma-separated, or all.")] = ALL,
    block_tokens: Annotated[
        int | None, typer.Option(help="Tokens a block: 16, 32, 64 or 128; the profile's.")
    ] = None,
    piece_tokens: Annotated[
        int | None,
        typer.Option(help="Keys of a piece of a list; they divide a block."),
    ] = None,
    selection: Annotated[
        str | None,
        typer.Option(
            help="How budgets choose blocks: sampled, pooled or vertical_slash; as the profile "
            "says, sampled where it scores none."
        ),
    ] = None,
    floor_tokens: Annotated[
        int | None, typer.Option(min=1, help="What max-min leaves every head; the paper's 128.")
    ] = None,
    curve: Annotated[
        str | None, typer.Option(help="Curves budgets are chosen by: selected or oracle.")
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Text for perplexity, a file or a folder; the library's held-out docstrings."
        ),
    ] = None,
    generate: Annotated[
        int, typer.Option(help="Answer so many samples of every task by generation too.")
    ] = 0,
    gpus: Annotated[int, typer.Option(min=1, help="Devices that share the heads.")] = 4,
    device_type: DeviceType = "h200",
    seed: Annotated[int, typer.Option(min=0, help="Which samples, and the resampling.")] = 0,
    threads: flags.Threads = None,
    dtype: flags.Dtype = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the frontier to this PNG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare methods at equal computed blocks on RULER-like tasks and held-out text.

    Rows are kept in OUT.rows.jsonl while it runs; started again, it goes on from there.

    Example: hplb evaluate --model reference -p reference-model --densities 0.2 --samples 2
    -o results.json --plot frontier.png
    """
    check_file("--out", out)
    check_file("--plot", plot, ".png")
    loaded_profile = load_profile(profile)
    curved = CURVES.get(curve or "")
    if curved != curve:
        raise RequestError(f"--curve: {curve!r} must be {' or '.join(CURVES)}")

    # torch takes seconds to load: `hplb --help` does without.
    from executor.evaluation.makespan import Devices
    from executor.evaluation.runner import Options
    from profiles.tasks import ruler

    block, piece = _sizes(loaded_profile, block_tokens, piece_tokens)
    names, notes = _methods(",".join(methods).split(","), loaded_profile)
    options = Options(
        contexts=tuple(dict.fromkeys(whole_numbers("--contexts", contexts))),
        densities=shares("--densities", densities),
        methods=names,
        tasks=tuple(ruler.TASKS) if tasks == ALL else tuple(dict.fromkeys(tasks.split(","))),
        samples=samples,
        seed=seed,
        block_tokens=block,
        piece_tokens=piece,
        selection=_selection(loaded_profile, selection),
        floor_tokens=floor_tokens or FLOOR_TOKENS,
        devices=Devices(gpus, device_type),
        curve=curved,
        text=text,
        generate=generate,
    )
    loaded = flags.load_model(model, dtype, threads)
    _run(model, loaded, loaded_profile, options, notes, out, plot, as_json)


def _run(
    model: str,
    loaded: "Loaded",
    profile: ModelProfile,
    options: "Options",
    notes: list[str],
    out: Path,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Evaluate, write, print; what was computed is kept beside `out` until that is written."""
    from executor.cli.frontier import plot_frontier
    from executor.evaluation.caveats import caveats
    from executor.evaluation.journal import Journal, Row
    from executor.evaluation.lines import summarise
    from executor.evaluation.loaded import check_profile
    from executor.evaluation.results import belongs_to, report
    from executor.evaluation.runner import check, evaluate

    check_profile(loaded, profile)
    check(options, loaded)
    notes = [*notes, *caveats(loaded, profile, options)]
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    rows = out.with_name(f"{out.name}.rows.jsonl")
    journal = Journal.open(rows, belongs_to(loaded, options), Row)
    with shown("calibrating") as show:
        evaluated = list(evaluate(loaded, profile, options, journal, show))
    lines = [line for each in evaluated for line in summarise(each, options.tasks, options.seed)]
    results = report(model, loaded, profile, options, evaluated, lines, notes)
    write_atomically(out, json.dumps(results, indent=1) + "\n")
    rows.unlink()
    if plot is not None:
        plot_frontier(lines, _title(profile, options), plot)
    if as_json:
        typer.echo(json.dumps(results))
    else:
        _show(lines, evaluated, notes)


def _title(profile: ModelProfile, options: "Options") -> str:
    """What of the plot was measured, and what was predicted for which devices."""
    return (
        f"{profile.name}: scores measured, {options.samples} samples a task; makespans "
        f"predicted on {options.devices.count} x {options.devices.type}"
    )


def _show(lines: list["Line"], evaluated: list["Evaluated"], notes: list[str]) -> None:
    from executor.cli.score_tables import by_setting, cost_table, generated_table, score_table

    for group in by_setting(lines):
        console.print(score_table(group))
        console.print(cost_table(group))
    for each in evaluated:
        if each.generated:
            console.print(generated_table(each.generated))
    for note in notes:
        console.print(f"[yellow]note[/]: {note}", highlight=False)


def _methods(asked: list[str], profile: ModelProfile) -> tuple[tuple[str, ...], list[str]]:
    """Methods to compare, and notes on those left out of all for want of what they need."""
    from executor.evaluation.methods import METHODS, check_names, unusable

    named = [name for name in asked if name != ALL]
    check_names(named)
    every = METHODS if ALL in asked else tuple(dict.fromkeys(named))
    lacking = unusable(every, profile)
    for name in named:
        if name in lacking:
            raise RequestError(f"--methods: {name}: {lacking[name]}")
    notes = [f"{name} is left out: it {why}" for name, why in lacking.items()]
    return tuple(name for name in every if name not in lacking), notes


def _selection(profile: ModelProfile, asked: str | None) -> Selection:
    """What was asked for; the profile's own where it is of that kind, or nothing was asked."""
    own = profile.selection
    if own.scores and asked in (None, own.kind):
        return own
    chosen = SELECTIONS.get(asked or SAMPLED.kind)
    if chosen is None:
        raise RequestError(f"--selection: {asked!r} must be one of {', '.join(SELECTIONS)}")
    return chosen


def _sizes(profile: ModelProfile, block: int | None, piece: int | None) -> tuple[int, int]:
    """Of the profile and the flags. Raises RequestError for what nothing computes."""
    block, piece = profile.sizes(block, piece)
    for flag, size in (("--block-tokens", block), ("--piece-tokens", piece)):
        if size not in get_args(BlockTokens):
            sizes = ", ".join(map(str, get_args(BlockTokens)))
            raise RequestError(f"{flag}: {size} must be one of {sizes}")
    fault = sizes_fault(block, piece)
    if fault is not None:
        raise RequestError(f"--piece-tokens: {fault}")
    return block, piece
