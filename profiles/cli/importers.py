"""`hplb profiles import`: published files become profiles."""

import json
from pathlib import Path
from typing import Annotated

import typer

from profiles.cli.console import clear_errors
from profiles.cli.flags import AsJson, ProfileOut
from profiles.cli.head_figures import shape_in_words
from profiles.importers.duo_attention import RECENT_TOKENS, SINK_TOKENS
from profiles.importers.headkv import WINDOW_TOKENS
from profiles.importers.kinds import Kind, import_profile
from profiles.model import ModelProfile

importing = typer.Typer(
    no_args_is_help=True,
    help="Make a profile of a published file.\n\n"
    "Example: hplb profiles import moa config.json --name mine --model llama-3-8b -o mine.json",
)

Source = Annotated[Path, typer.Argument(metavar="FILE", help="The published file.")]
Name = Annotated[str, typer.Option("--name", help="The profile's name.")]
Model = Annotated[str | None, typer.Option("--model", help="The model, by a public name.")]
Config = Annotated[Path | None, typer.Option("--config", help="The model's config.json.")]


def _plain_command(kind: Kind, words: str, source: str) -> None:
    """The command of a kind that has no options of its own."""

    @importing.command(kind, help=f"{words}\n\n{_example(kind, source)}")
    @clear_errors()
    def command(
        file: Source,
        name: Name,
        out: ProfileOut,
        model: Model = None,
        config: Config = None,
        as_json: AsJson = False,
    ) -> None:
        _save(import_profile(file, name=name, kind=kind, model=model, config=config), out, as_json)


def _example(kind: Kind, source: str, more: str = "") -> str:
    return f"Example: hplb profiles import {kind} {source} --name mine{more} -o mine.json"


_plain_command(
    "minference",
    "Budgets of a MInference pattern search (JSON).",
    "Llama_3.1_8B_Instruct_128k_kv_out_v32_fit_o_best_pattern.json",
)
_plain_command(
    "moa", "Elastic rules of MoA (JSON of alphas and betas).", "rules.json --model llama-3-8b"
)


@importing.command("duo-attention")
@clear_errors()
def duo_attention_command(
    file: Source,
    name: Name,
    out: ProfileOut,
    model: Model = None,
    config: Config = None,
    threshold: Annotated[
        float | None, typer.Option(help="Heads with a gate of at least this are full.")
    ] = None,
    full_share: Annotated[
        float | None,
        typer.Option(help="Share of KV heads that are full; 0.5 for GQA, 0.25 for MHA models."),
    ] = None,
    sink_tokens: Annotated[
        int, typer.Option(help="First tokens a streaming head reads.")
    ] = SINK_TOKENS,
    recent_tokens: Annotated[
        int, typer.Option(help="Last tokens a streaming head reads.")
    ] = RECENT_TOKENS,
    as_json: AsJson = False,
) -> None:
    """Full and streaming heads by DuoAttention's gates (TSV).

    Example: hplb profiles import duo-attention gates.tsv --name mine --model llama-3.1-8b -o
    mine.json
    """
    profile = import_profile(
        file,
        name=name,
        kind="duo-attention",
        model=model,
        config=config,
        threshold=threshold,
        full_share=full_share,
        sink_tokens=sink_tokens,
        recent_tokens=recent_tokens,
    )
    _save(profile, out, as_json)


_plain_command(
    "tangram",
    "Tokens kept per request, as TANGRAM measured them (NPZ).",
    "kept.npz --model llama-3.1-8b",
)
_plain_command(
    "s2",
    "Strided patterns of S2-Attention, from their parameters (JSON).",
    "strides.json --config config.json",
)
_plain_command(
    "redknot",
    "Sink and window, or the whole context, by RedKnot's classes (JSON).",
    "classes.json --model qwen3-32b",
)


def _scores_command(kind: Kind, words: str) -> None:
    more = " --model llama-3-8b --capacity-tokens 128 --beta 1.5"

    @importing.command(kind, help=f"{words}\n\n{_example(kind, 'scores.json', more)}")
    @clear_errors()
    def command(
        file: Source,
        name: Name,
        out: ProfileOut,
        capacity_tokens: Annotated[int, typer.Option(help="Tokens that the mean head keeps.")],
        beta: Annotated[float, typer.Option(help="1/beta of them is shared out by score.")],
        model: Model = None,
        config: Config = None,
        window_tokens: Annotated[
            int, typer.Option(help="Last tokens, which all keep.")
        ] = WINDOW_TOKENS,
        as_json: AsJson = False,
    ) -> None:
        profile = import_profile(
            file,
            name=name,
            kind=kind,
            model=model,
            config=config,
            capacity_tokens=capacity_tokens,
            beta=beta,
            window_tokens=window_tokens,
        )
        _save(profile, out, as_json)


_scores_command("headkv", "Budgets by HeadKV's rule from its scores (JSON).")
_scores_command("retrieval-head", "Budgets by HeadKV's rule from Retrieval_Head's scores (JSON).")


def _save(profile: ModelProfile, out: Path, as_json: bool) -> None:
    profile.save(out)
    if as_json:
        told = {"path": str(out), "source": profile.source, "digest": profile.digest}
        typer.echo(json.dumps({"name": profile.name, **told}))
        return
    shape = shape_in_words(profile.architecture)
    typer.echo(f"{out}: {profile.name}, {shape}, {profile.source}")
