"""What the demo shows at its end: predicted against measured, and the long-context prediction."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from api.demo.round_trip import DemoOptions, DemoResult
from profiles.model import ModelProfile
from solver.cli.table import comparison_table
from solver.report.comparison import Row, compare, notes

LONG_CONTEXT, LONG_GPUS, LONG_TYPE = 131_072, 8, "h200"
LONG_METHODS = ("contiguous", "greedy", "cp_sat", "auto")
LONG_TIME_LIMIT_S = 3.0


def report(options: DemoOptions, result: DemoResult, say: Console) -> None:
    """Print the measured table, the error before and after, and the predicted table."""
    say.print(_measured_table(options, result))
    say.print(
        f"mean prediction error of device loads: [bold]{100 * result.error_before:.1f} %[/] before "
        f"refitting, [bold]{100 * result.error_after:.1f} %[/] after, on a generation that no rate "
        "was fitted on",
        highlight=False,
    )
    model = "The same model"
    if options.predicted != options.profile:
        label = ", synthetic" if options.predicted.synthetic else ""
        model = f"{options.predicted.name} ({_size(options.predicted)}{label})"
    say.print(f"\n{model} at 128K on GPUs: [bold]predicted, not measured[/]")
    rows = _long_context_rows(options)
    say.print(comparison_table(rows))
    for note in notes(rows):
        say.print(f"[yellow]note[/]: {note}", highlight=False)


def _measured_table(options: DemoOptions, result: DemoResult) -> Table:
    title = (
        f"{options.profile.name}, {options.context_tokens:,} tokens, layers "
        f"{', '.join(map(str, result.layers_run))}, {options.devices} x {result.device_type}"
    )
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("generation", no_wrap=True)
    for column in ("predicted ms", "measured ms", "bubble pred. %", "meas. %", "load error %"):
        table.add_column(column, justify="right")
    for outcome in result.outcomes:
        table.add_row(
            f"{outcome.generation} {outcome.method}",
            f"{1e3 * outcome.predicted_s:.1f}",
            f"{1e3 * outcome.measured_s:.1f}",
            f"{100 * outcome.predicted_bubble:.1f}",
            f"{100 * outcome.measured_bubble:.1f}",
            f"{100 * outcome.prediction_error:.1f}",
        )
    return table


def _size(profile: ModelProfile) -> str:
    return f"{profile.architecture.layers} layers x {profile.architecture.query_heads} heads"


def _long_context_rows(options: DemoOptions) -> list[Row]:
    return compare(
        options.predicted,
        gpus=[LONG_GPUS],
        deployments=("disaggregated", "tensor_parallel"),
        methods=LONG_METHODS,
        device_type=LONG_TYPE,
        context_tokens=LONG_CONTEXT,
        time_limit_s=LONG_TIME_LIMIT_S,
    ).rows
