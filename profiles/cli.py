"""`hplb profiles`: bring model profiles in, list them, look at them."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from profiles import measured
from profiles.architecture import Architecture
from profiles.console import clear_errors, console, fail
from profiles.errors import ProfileError
from profiles.heads import CurvesForm
from profiles.importers import duo_attention, minference, moa, s2, tangram
from profiles.library import catalogue_names, catalogue_profile, resolve_profile
from profiles.measure_cli import measure
from profiles.model import ModelProfile
from profiles.models import resolve_architecture
from profiles.plot import plot_profile
from profiles.prompts_cli import prompts
from profiles.summary import head_tokens

app = typer.Typer(no_args_is_help=True)
commands = typer.Typer(no_args_is_help=True, help="Model profiles: what each head needs.")
importing = typer.Typer(no_args_is_help=True, help="Make a profile of a published file.")
app.add_typer(commands, name="profiles")
commands.add_typer(importing, name="import")
commands.command("prompts")(prompts)
commands.command("measure")(measure)


Source = Annotated[Path, typer.Argument(metavar="FILE", help="The published file.")]
Name = Annotated[str, typer.Option("--name", help="The profile's name.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The profile file to write.")]
Model = Annotated[str | None, typer.Option("--model", help="The model, by a public name.")]
Config = Annotated[Path | None, typer.Option("--config", help="The model's config.json.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@importing.command("minference")
@clear_errors()
def import_minference(
    file: Source, name: Name, out: Out, model: Model = None, config: Config = None
) -> None:
    """Budgets of a MInference pattern search (JSON)."""
    _save(minference.read(file, name, _architecture(file, model, config)), out)


@importing.command("moa")
@clear_errors()
def import_moa(
    file: Source, name: Name, out: Out, model: Model = None, config: Config = None
) -> None:
    """Elastic rules of MoA (JSON of alphas and betas)."""
    _save(moa.read(file, name, _architecture(file, model, config)), out)


@importing.command("duo-attention")
@clear_errors()
def import_duo_attention(
    file: Source,
    name: Name,
    out: Out,
    model: Model = None,
    config: Config = None,
    threshold: Annotated[
        float | None, typer.Option(help="Heads with a gate of at least this are full.")
    ] = None,
    full_share: Annotated[
        float | None,
        typer.Option(help="Share of KV heads that are full; 0.5 for GQA, 0.25 for MHA models."),
    ] = None,
    sink: Annotated[
        int, typer.Option(help="First tokens a streaming head reads.")
    ] = duo_attention.SINK_TOKENS,
    recent: Annotated[
        int, typer.Option(help="Last tokens a streaming head reads.")
    ] = duo_attention.RECENT_TOKENS,
) -> None:
    """Full and streaming heads by DuoAttention's gates (TSV)."""
    profile = duo_attention.read(
        file,
        name,
        _architecture(file, model, config),
        threshold=threshold,
        full_share=full_share,
        sink_tokens=sink,
        recent_tokens=recent,
    )
    _save(profile, out)


@importing.command("tangram")
@clear_errors()
def import_tangram(
    file: Source, name: Name, out: Out, model: Model = None, config: Config = None
) -> None:
    """Tokens kept per request, as TANGRAM measured them (NPZ)."""
    _save(tangram.read(file, name, _architecture(file, model, config)), out)


@importing.command("s2")
@clear_errors()
def import_s2(
    file: Source, name: Name, out: Out, model: Model = None, config: Config = None
) -> None:
    """Strided patterns of S2-Attention, from their parameters (JSON)."""
    _save(s2.read(file, name, _architecture(file, model, config)), out)


@commands.command("list")
@clear_errors()
def list_profiles(as_json: Json = False) -> None:
    """The profiles that are shipped."""
    shipped = [_facts(catalogue_profile(name)) for name in catalogue_names()]
    if as_json:
        typer.echo(json.dumps(shipped, indent=2))
        return
    table = Table("name", "shape", "form", "synthetic")
    for facts in shipped:
        synthetic = "yes" if facts["synthetic"] else "no"
        table.add_row(facts["name"], _shape(facts["architecture"]), facts["form"], synthetic)
    console.print(table)


@commands.command("show")
@clear_errors()
def show(
    profile: Annotated[str, typer.Argument(metavar="NAME_OR_PATH")],
    as_json: Json = False,
    plot: Annotated[Path | None, typer.Option(help="Draw recovery curves as PNG.")] = None,
) -> None:
    """A profile's origin, and what its heads need layer by layer."""
    found = resolve_profile(profile)
    facts, (tokens, what) = _facts(found), head_tokens(found.heads)
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
            curves = measured.facts(found.heads, found.measurement)
        typer.echo(json.dumps({**facts, "figures": what, "layers": layers, **curves}, indent=2))
        return
    made_up = " (synthetic)" if found.synthetic else ""
    console.print(f"{found.name}{made_up}: {_shape(facts['architecture'])}", markup=False)
    console.print(f"form: {facts['form']}; source: {found.source}", markup=False)
    console.print(f"selection: {_in_words(facts['selection'])}", markup=False)
    if found.measurement is not None:
        console.print(measured.in_words(found.measurement), markup=False)
    table = Table("layer", "least", "mean", "most", title=f"tokens per head: {what}")
    for row in layers:
        figures = (row["least_tokens"], row["mean_tokens"], row["most_tokens"])
        table.add_row(str(row["layer"]), *(f"{figure:,.0f}" for figure in figures))
    console.print(table)
    if isinstance(found.heads, CurvesForm):
        console.print(measured.shares_table(found.heads))
    if found.measurement is not None and found.measurement.stability:
        console.print(measured.stability_table(found.measurement.stability))


def _architecture(file: Path, model: str | None, config: Path | None) -> Architecture:
    if model is not None and config is not None:
        fail("--model and --config: give one of the two, not both")
    if not file.exists():
        raise ProfileError(f"{file}: there is no such file")
    return resolve_architecture(file, model, config)


def _save(profile: ModelProfile, out: Path) -> None:
    profile.save(out)
    facts = _facts(profile)
    typer.echo(f"{out}: {profile.name}, {_shape(facts['architecture'])}, {profile.source}")


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


def _shape(architecture: dict[str, Any]) -> str:
    return "{layers} layers x {query_heads} heads ({kv_heads} KV)".format(**architecture)
