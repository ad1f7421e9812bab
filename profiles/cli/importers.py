"""`hplb profiles import`: published files become profiles."""

from pathlib import Path
from typing import Annotated

import typer

from profiles.cli.console import clear_errors
from profiles.cli.head_figures import shape_in_words
from profiles.importers.duo_attention import RECENT_TOKENS, SINK_TOKENS
from profiles.importers.headkv import WINDOW_TOKENS
from profiles.importers.kinds import Kind, import_profile
from profiles.model import ModelProfile

importing = typer.Typer(no_args_is_help=True, help="Make a profile of a published file.")

Source = Annotated[Path, typer.Argument(metavar="FILE", help="The published file.")]
Name = Annotated[str, typer.Option("--name", help="The profile's name.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The profile file to write.")]
Model = Annotated[str | None, typer.Option("--model", help="The model, by a public name.")]
Config = Annotated[Path | None, typer.Option("--config", help="The model's config.json.")]


def _plain_command(kind: Kind, words: str) -> None:
    """The command of a kind that has no options of its own."""

    @importing.command(kind, help=words)
    @clear_errors()
    def command(
        file: Source, name: Name, out: Out, model: Model = None, config: Config = None
    ) -> None:
        _save(import_profile(file, name=name, kind=kind, model=model, config=config), out)


_plain_command("minference", "Budgets of a MInference pattern search (JSON).")
_plain_command("moa", "Elastic rules of MoA (JSON of alphas and betas).")


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


_plain_command("tangram", "Tokens kept per request, as TANGRAM measured them (NPZ).")
_plain_command("s2", "Strided patterns of S2-Attention, from their parameters (JSON).")
_plain_command("redknot", "Sink and window, or the whole context, by RedKnot's classes (JSON).")


def _scores_command(kind: Kind, words: str) -> None:
    @importing.command(kind, help=words)
    @clear_errors()
    def command(
        file: Source,
        name: Name,
        out: Out,
        capacity: Annotated[int, typer.Option(help="Tokens that the mean head keeps.")],
        beta: Annotated[float, typer.Option(help="1/beta of them is shared out by score.")],
        model: Model = None,
        config: Config = None,
        window: Annotated[int, typer.Option(help="Last tokens, which all keep.")] = WINDOW_TOKENS,
    ) -> None:
        profile = import_profile(
            file,
            name=name,
            kind=kind,
            model=model,
            config=config,
            capacity_tokens=capacity,
            beta=beta,
            window_tokens=window,
        )
        _save(profile, out)


_scores_command("headkv", "Budgets by HeadKV's rule from its scores (JSON).")
_scores_command("retrieval-head", "Budgets by HeadKV's rule from Retrieval_Head's scores (JSON).")


def _save(profile: ModelProfile, out: Path) -> None:
    profile.save(out)
    shape = shape_in_words(profile.architecture)
    typer.echo(f"{out}: {profile.name}, {shape}, {profile.source}")
