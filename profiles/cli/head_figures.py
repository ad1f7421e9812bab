"""A profile's figures for people to look at: a number for each head, and tables of them."""

from typing import Any

import numpy as np
from rich.table import Table

from profiles.architecture import Architecture
from profiles.heads import (
    MAX_TOKENS,
    BudgetsForm,
    CurvesForm,
    Floats,
    Heads,
    RulesForm,
    SamplesForm,
)
from profiles.heterogeneity import RECOVERY, head_shares
from profiles.measurement import Measurement, Stability

RULES_CONTEXT_TOKENS = 131_072


def reaches(architecture: Architecture, context_tokens: int) -> Floats:
    """The most tokens of a context that a row of each layer can see, `[layers, 1]`."""
    return np.array(architecture.reaches(context_tokens), dtype=float)[:, None]


def head_tokens(heads: Heads, architecture: Architecture) -> tuple[Floats, str]:
    """Tokens `[layers, heads]` that stand for the profile's figures, and what they are.

    No more than a layer's window. Curves are interpolated at RECOVERY (a glance, not a budget
    policy: that is the solver's).
    """
    match heads:
        case BudgetsForm():
            context, tokens = MAX_TOKENS, np.array(heads.tokens)
            what = "stated budgets"
        case RulesForm():
            context = RULES_CONTEXT_TOKENS
            tokens = np.maximum(np.array(heads.alpha_tokens) + np.array(heads.beta) * context, 0)
            what = f"alpha + beta * context at {context} tokens"
        case SamplesForm():
            context, tokens = max(heads.context_tokens), np.mean(heads.kept_tokens, axis=0)
            what = f"mean tokens kept over {len(heads.task)} requests"
        case CurvesForm():
            context = heads.context_tokens[-1]
            tokens = head_shares(heads)[-1] * context
            what = f"budget for recovery {RECOVERY} at {context} tokens"
    return np.minimum(tokens, reaches(architecture, context)), what


def shape_in_words(architecture: Architecture) -> str:
    """`24 layers x 64 heads (8 KV), 12 with a window of 128`."""
    heads = f"{architecture.query_heads} heads ({architecture.kv_heads} KV)"
    windows = [window for window in architecture.windows if window is not None]
    sizes = " or ".join(str(window) for window in sorted(set(windows)))
    sliding = f", {len(windows)} with a window of {sizes}" if windows else ""
    return f"{architecture.layers} layers x {heads}{sliding}"


def layer_shares(heads: CurvesForm, architecture: Architecture) -> list[dict[str, float]]:
    """Least, median and most share of the longest context that the heads of each layer need."""
    shares = head_tokens(heads, architecture)[0] / heads.context_tokens[-1]
    return [
        {
            "layer": layer,
            "least_share": float(row.min()),
            "median_share": float(np.median(row)),
            "most_share": float(row.max()),
        }
        for layer, row in enumerate(shares)
    ]


def curve_facts(
    heads: CurvesForm, architecture: Architecture, measurement: Measurement | None
) -> dict[str, Any]:
    """For `hplb profiles show --json`; `measurement` is null where the curves are not our own."""
    return {
        "recovery": RECOVERY,
        "shares_context_tokens": heads.context_tokens[-1],
        "shares": layer_shares(heads, architecture),
        "measurement": measurement.model_dump(mode="json") if measurement else None,
    }


def measurement_in_words(measurement: Measurement) -> str:
    """One line: on what and with what it was measured."""
    prompts = ", ".join(f"{count} {task}" for task, count in measurement.prompts.items())
    block, piece = measurement.block_tokens, measurement.piece_tokens
    sizes = f"blocks of {block} tokens" + (f" over pieces of {piece}" if piece != block else "")
    return (
        f"measured: {prompts}; {measurement.rows} rows a prompt, {sizes}, "
        f"{measurement.seconds:,.0f} s"
    )


def shares_table(heads: CurvesForm, architecture: Architecture) -> Table:
    """The share of the context that heads need, layer by layer."""
    table = Table(
        "layer",
        "least",
        "median",
        "most",
        title=f"share of {heads.context_tokens[-1]} tokens for recovery {RECOVERY}",
    )
    for row in layer_shares(heads, architecture):
        shares = (row["least_share"], row["median_share"], row["most_share"])
        table.add_row(str(row["layer"]), *(f"{share:.1%}" for share in shares))
    return table


def stability_table(stability: list[Stability]) -> Table:
    """Spearman's correlations: of all heads, and least and median over layers."""
    table = Table(
        "between", "", "model", "least layer", "median layer", title="rank correlation of heads"
    )
    for pair in stability:
        layers = [figure for figure in pair.layers if figure is not None]
        figures = [
            pair.model,
            *((min(layers), float(np.median(layers))) if layers else (None,) * 2),
        ]
        words = ("-" if figure is None else f"{figure:.2f}" for figure in figures)
        table.add_row(pair.axis, " / ".join(pair.between), *words)
    return table
