"""`hplb profiles list` and `show`: what profiles there are, and what is in one."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from profiles.catalogue import catalogue_names, catalogue_profile, load_profile
from profiles.cli.console import clear_errors, console
from profiles.cli.flags import AsJson, check_file, profile_names
from profiles.cli.head_figures import (
    curve_facts,
    head_tokens,
    measurement_in_words,
    shape_in_words,
    shares_table,
    stability_table,
)
from profiles.cli.recovery_panels import plot_profile
from profiles.heads import CurvesForm
from profiles.model import ModelProfile


@clear_errors()
def list_command(as_json: AsJson = False) -> None:
    """The profiles that are shipped.

    Example: hplb profiles list --json
    """
    shipped = [catalogue_profile(name) for name in catalogue_names()]
    if as_json:
        typer.echo(json.dumps([_facts(profile) for profile in shipped], indent=2))
        return
    table = Table("name", "shape", "form", "synthetic")
    for profile in shipped:
        synthetic = "yes" if profile.synthetic else "no"
        shape = shape_in_words(profile.architecture)
        table.add_row(profile.name, shape, profile.heads.form, synthetic)
    console.print(table)


@clear_errors()
def show_command(
    profile: Annotated[
        str,
        typer.Argument(
            metavar="PROFILE",
            help="A profile's name or the path of its JSON.",
            autocompletion=profile_names,
        ),
    ],
    plot: Annotated[Path | None, typer.Option(help="Draw recovery curves to this PNG.")] = None,
    as_json: AsJson = False,
) -> None:
    """A profile's origin, and what its heads need layer by layer.

    Example: hplb profiles show smollm2-135m --plot recovery.png
    """
    check_file("--plot", plot, ".png")
    found = load_profile(profile)
    facts, (tokens, what) = _facts(found), head_tokens(found.heads, found.architecture)
    if plot is not None:
        plot_profile(found, plot)
    layers = [
        {
            "layer": layer,
            "least_tokens": float(row.min()),
            "mean_tokens": float(row.mean()),
            "most_tokens": float(row.max()),
        }
        for layer, row in enumerate(tokens)
    ]
    if as_json:
        curves = {}
        if isinstance(found.heads, CurvesForm):
            curves = curve_facts(found.heads, found.architecture, found.measurement)
        typer.echo(json.dumps({**facts, "figures": what, "layers": layers, **curves}, indent=2))
        return
    made_up = " (synthetic)" if found.synthetic else ""
    console.print(f"{found.name}{made_up}: {shape_in_words(found.architecture)}", markup=False)
    console.print(f"form: {facts['form']}; source: {found.source}", markup=False)
    console.print(f"selection: {_in_words(facts['selection'])}", markup=False)
    if found.measurement is not None:
        console.print(measurement_in_words(found.measurement), markup=False)
    table = Table("layer", "least", "mean", "most", title=f"tokens per head: {what}")
    for row in layers:
        figures = (row["least_tokens"], row["mean_tokens"], row["most_tokens"])
        table.add_row(str(row["layer"]), *(f"{figure:,.0f}" for figure in figures))
    console.print(table)
    if isinstance(found.heads, CurvesForm):
        console.print(shares_table(found.heads, found.architecture))
    if found.measurement is not None and found.measurement.stability:
        console.print(stability_table(found.measurement.stability))


def _facts(profile: ModelProfile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "architecture": profile.architecture.model_dump(mode="json"),
        "form": profile.heads.form,
        "selection": profile.selection.model_dump(mode="json"),
        "source": profile.source,
        "synthetic": profile.synthetic,
        "digest": profile.digest,
    }


def _in_words(selection: dict[str, Any]) -> str:
    """`strided (block_tokens 64, ...)`."""
    figures = [f"{field} {figure}" for field, figure in selection.items() if field != "kind"]
    return f"{selection['kind']} ({', '.join(figures)})" if figures else str(selection["kind"])
