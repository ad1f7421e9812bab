"""What the demo shows at its end: every generation predicted and measured, what was gained."""

from math import comb
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from api.demo.generations import (
    CONTIGUOUS,
    DENSE,
    Floats,
    Generation,
    bubble,
    expected_makespan,
    makespan,
)
from api.demo.round_trip import DemoOptions, DemoResult

COVERED = 0.95
"""Confidence of the measured gain's interval."""


def figures(options: DemoOptions, result: DemoResult) -> dict[str, Any]:
    """All of it as JSON.

    A row's `generations` are the planner's numbers, a round each; `spread_s` is the distance of the
    quartiles of the rounds' makespans, `refitted_s` the makespan predicted by the rates that the
    last generation was planned with, and `expected_s` the same with the waits to expect of what
    these rates are wrong by, `rates_error`: `gain_predicted` is between those. `gain_interval`:
    where the median gain of rounds without end lies, with a probability of COVERED at least; None
    for less than six rounds. `loss`: nats a token over dense.
    """
    last, base = result.generations[-1], _named(result, CONTIGUOUS)
    by_round = 1 - last.rounds_s / base.rounds_s
    return {
        "model": options.profile.name,
        "context_tokens": options.context,
        "devices": options.devices,
        "device_type": last.plan.devices[0],
        "layers": last.layers,
        "rounds": len(last.loads_s),
        "own_weights": result.loss.own_weights if result.loss else None,
        "generations": [_row(each, result) for each in result.generations],
        "error_before": result.before,
        "error_after": last.error,
        "rates_error": result.rates_error,
        "gain_predicted": 1 - _expected_s(last, result) / _expected_s(base, result),
        "gain_measured": 1 - makespan(last.measured_s) / makespan(base.measured_s),
        "gain_interval": interval(by_round),
    }


def interval(values: Floats) -> list[float] | None:
    """Of the median, by order statistics: as many of the least and the largest left out as COVERED
    allows. None where there are too few values for it."""
    ordered, place = np.sort(values), 0
    while 2 * _chance_below(len(values), place + 1) <= 1 - COVERED:
        place += 1
    return [float(ordered[place - 1]), float(ordered[-place])] if place else None


def _chance_below(values: int, count: int) -> float:
    """That fewer than `count` of so many values lie below their median."""
    return sum(comb(values, below) for below in range(count)) * 0.5**values


def _named(result: DemoResult, name: str) -> Generation:
    return next(each for each in result.generations if each.name == name)


def _expected_s(generation: Generation, result: DemoResult) -> float:
    return expected_makespan(generation.again_s(result.rates), result.rates_error)


def _row(generation: Generation, result: DemoResult) -> dict[str, Any]:
    planned_s, measured_s = generation.planned_s, generation.measured_s
    policy = generation.asked.settled().budget.policy
    low, high = np.percentile(generation.rounds_s, [25, 75])
    loss = None if result.loss is None else result.loss.over_dense
    return {
        "name": generation.name,
        "method": "divided" if generation.asked.placement.divisible else generation.asked.method,
        "budgets": DENSE if generation.name == DENSE else policy,
        "density": generation.density,
        "generations": generation.numbers,
        "predicted_s": makespan(planned_s),
        "refitted_s": makespan(generation.again_s(result.rates)),
        "expected_s": _expected_s(generation, result),
        "measured_s": makespan(measured_s),
        "spread_s": float(high - low),
        "bubble_predicted": bubble(planned_s),
        "bubble_measured": bubble(measured_s),
        "load_error": generation.error,
        "loss": 0.0 if generation.name == DENSE and loss is not None else loss,
    }


def report(found: dict[str, Any], say: Console) -> None:
    """Print the figures: the table, the errors and the gain."""
    say.print(_table(found))
    say.print(
        f"mean prediction error of device loads: [bold]{100 * found['error_before']:.1f} %[/] "
        f"before refitting, [bold]{100 * found['error_after']:.1f} %[/] after, in rounds that no "
        "rate was fitted on",
        highlight=False,
    )
    spread = "[bold]too few rounds[/] for an interval"
    if found["gain_interval"] is not None:
        low, high = found["gain_interval"]
        verdict = "significant" if low > 0 else "[bold]not significant[/]"
        spread = f"{100 * low:.1f} to {100 * high:.1f} %: {verdict}"
    say.print(
        f"gain over contiguous with the same budgets: predicted "
        f"[bold]{100 * found['gain_predicted']:.1f} %[/] by the refitted rates and the waits that "
        f"their own error of {100 * found['rates_error']:.1f} % makes, measured "
        f"[bold]{100 * found['gain_measured']:.1f} %[/] ({spread})",
        highlight=False,
    )


def _table(found: dict[str, Any]) -> Table:
    sparse = found["generations"][-1]
    title = (
        f"{found['model']}, {found['context_tokens']:,} tokens, layers "
        f"{', '.join(map(str, found['layers']))}, {found['devices']} x {found['device_type']}; "
        f"budgets {sparse['budgets']}, {100 * sparse['density']:.0f} % of dense's pairs"
    )
    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False
    )
    table.add_column("generation", no_wrap=True)
    for column in ("predicted ms", "expected", "measured", "spread", "bubble %", "meas.", "loss"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in found["generations"]:
        table.add_row(
            row["name"],
            *(f"{1e3 * row[s]:.1f}" for s in ("predicted_s", "expected_s", "measured_s")),
            f"{1e3 * row['spread_s']:.1f}",
            *(f"{100 * row[share]:.1f}" for share in ("bubble_predicted", "bubble_measured")),
            "-" if row["loss"] is None else f"{row['loss']:+.4f}",
        )
    return table
