"""`hplb profiles import`: published files become profiles."""

from pathlib import Path
from typing import Annotated

import typer

from profiles.cli.console import clear_errors
from profiles.cli.head_figures import shape_in_words
from profiles.importers.duo_attention import RECENT_TOKENS, SINK_TOKENS
from profiles.importers.kinds import import_profile
from profiles.model import ModelProfile

importing = typer.Typer(no_args_is_help=True, help="Make a profile of a published file.")

Source = Annotated[Path, typer.Argument(metavar="FILE", help="The published file.")]
Name = Annotated[str, typer.Option("--name", help="The profile's name.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The profile file to write.")]
Model = Annotated[str | None, typer.Option("--model", help="The model, by a public name.")]
Config = Annotated[Path | None, typer.Option("--config", help="The model's config.json.")]


@importing.command("minference")
@clear_errors()
def minference_command(
    file: Source, name: Name, out: Out, model: Model = None, config: Config = None
) -> None:
    """Budgets of a MInference pattern search (JSON)."""
    _save(import_profile(file, name=name, kind="minference", model=model, config=config), out)


@importing.command("moa")
@clear_errors()
def moa_command(
    file: Source, name: Name, out: Out, model: Model = None, config: Config = None
) -> None:
    """Elastic rules of MoA (JSON of alphas and betas)."""
    _save(import_profile(file, name=name, kind="moa", model=model, config=config), out)


@importing.command("duo-attention")
@clear_errors()
def duo_attention_command(
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
    sink: Annotated[int, typer.Option(help="First tokens a streaming head reads.")] = SINK_TOKENS,
    recent: Annotated[
        int, typer.Option(help="Last tokens a streaming head reads.")
    ] = RECENT_TOKENS,
) -> None:
    """Full and streaming heads by DuoAttention's gates (TSV)."""
    profile = import_profile(
        file,
        name=name,
        kind="duo-attention",
        model=model,
        config=config,
        threshold=threshold,
        full_share=full_share,
        sink_tokens=sink,
        recent_tokens=recent,
    )
    _save(profile, out)


@importing.command("tangram")
@clear_errors()
def tangram_command(
    file: Source, name: Name, out: Out, model: Model = None, config: Config = None
) -> None:
    """Tokens kept per request, as TANGRAM measured them (NPZ)."""
    _save(import_profile(file, name=name, kind="tangram", model=model, config=config), out)


@importing.command("s2")
@clear_errors()
def s2_command(
    file: Source, name: Name, out: Out, model: Model = None, config: Config = None
) -> None:
    """Strided patterns of S2-Attention, from their parameters (JSON)."""
    _save(import_profile(file, name=name, kind="s2", model=model, config=config), out)


def _save(profile: ModelProfile, out: Path) -> None:
    profile.save(out)
    shape = shape_in_words(profile.architecture)
    typer.echo(f"{out}: {profile.name}, {shape}, {profile.source}")
