"""Recovery curves as the paper draws them (S-HPLB, arXiv 2603.10353, figures 3, 4 and 6)."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from profiles.architecture import Architecture
from profiles.cli.head_figures import reaches, shape_in_words
from profiles.errors import HplbError, ProfileError
from profiles.heads import CurvesForm
from profiles.heterogeneity import RECOVERY, head_shares, needed_shares, spearman
from profiles.measurement import Stability
from profiles.model import ModelProfile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.image import AxesImage

PAIRS_SHOWN, LEAST_BARS = 20, 4
"""Correlations as bars; so few would leave the panel empty."""
LETTERS = 56
"""Of a line of the title: the widest ones fit."""
LEAST_INCHES, LAYER_INCHES = 3.4, 0.16
"""Of a heat map: a layer's row stays visible however many there are."""
TICKS = (1, 2, 5)
ORACLE, SELECTED = "#1f5fa8", "#d1600a"
Floats = NDArray[np.float64]


def plot_profile(profile: ModelProfile, path: Path) -> None:
    """Write panels as PNG: each head's need and curve at the longest context, rank correlations.

    By the best pieces there are and, where that was measured, by those that the executor chooses.
    Raises ProfileError for a profile of no curves, HplbError where the file cannot be written.
    """
    heads = profile.heads
    if not isinstance(heads, CurvesForm):
        raise ProfileError(f"{profile.name}: has {heads.form}; only recovery curves are plotted")
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator

    curves = _curves(profile, heads)
    height = max(LEAST_INCHES, LAYER_INCHES * profile.architecture.layers)
    figure = plt.figure(figsize=(12, height + 5), layout="constrained", facecolor="white")
    upper, lower = figure.subfigures(2, squeeze=False, height_ratios=[height, 4.2])[:, 0]
    maps = upper.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    image = _heat_maps(maps, curves, heads, profile.architecture)
    label = f"share of the context for recovery {RECOVERY}"
    ticks = LogLocator(subs=TICKS)
    bar = upper.colorbar(image, ax=maps, label=label, ticks=ticks, format=_percent, pad=0.01)
    bar.ax.minorticks_off()
    stability = profile.measurement.stability if profile.measurement else []
    left, *right = lower.subplots(1, 2 if stability else 1, squeeze=False)[0]
    _draw_curves(left, curves, heads)
    for axis in right:
        if len(stability) >= LEAST_BARS or len(heads.context_tokens) < 2:
            _correlations(axis, stability)
        else:
            _contexts(axis, heads, profile.architecture)
    title = f"{profile.name}: {shape_in_words(profile.architecture)}; {_origin(profile)}"
    figure.suptitle(textwrap.fill(title, LETTERS))
    try:
        figure.savefig(path, dpi=130, format="png", metadata={"Title": title})
    except (OSError, ValueError) as error:
        raise HplbError(f"{path}: the plot cannot be written: {error}") from None
    finally:
        plt.close(figure)


def _origin(profile: ModelProfile) -> str:
    """Whether the curves were measured, and on how much."""
    if profile.synthetic:
        return "synthetic, nothing was measured"
    if profile.measurement is None:
        return "imported"
    return f"measured on {sum(profile.measurement.prompts.values())} prompts"


def _curves(profile: ModelProfile, heads: CurvesForm) -> dict[str, tuple[str, Floats]]:
    """By whose pieces: a colour, and recovery [layers, heads, points] at the longest context."""
    found = {"the best pieces": (ORACLE, np.array(heads.recovery)[:, :, -1])}
    if heads.selected_recovery is not None:
        selected = np.array(heads.selected_recovery)[:, :, -1]
        found[f"the executor's ({profile.selection.kind})"] = (SELECTED, selected)
    return found


def _heat_maps(
    axes: "NDArray[np.object_]",
    curves: dict[str, tuple[str, Floats]],
    heads: CurvesForm,
    architecture: Architecture,
) -> "AxesImage":
    """What each head needs; one scale for all maps, in which twice as much is a step anywhere."""
    from matplotlib.colors import LogNorm

    budgets, context = np.array(heads.budget_tokens[-1], dtype=float), heads.context_tokens[-1]
    seen = reaches(architecture, context) / context
    needed = [
        np.minimum(needed_shares(recovery, budgets, context), seen)
        for _, recovery in curves.values()
    ]
    least, most = min(x.min() for x in needed), max(x.max() for x in needed)
    scale = LogNorm(least, max(most, 1.1 * least))
    image: AxesImage
    for axis, whose, shares in zip(axes, curves, needed, strict=True):
        image = axis.imshow(shares, aspect="auto", norm=scale, cmap="YlGnBu")
        axis.set(xlabel="head")
        axis.set_title(f"what heads need of {context:,} tokens, by {whose}", fontsize=10)
        _whole_numbers(axis.xaxis, axis.yaxis)
    axes[0].set_ylabel("layer")
    return image


def _draw_curves(axis: "Axes", curves: dict[str, tuple[str, Floats]], heads: CurvesForm) -> None:
    """A thin line a head, and their median."""
    context = heads.context_tokens[-1]
    shares = np.array(heads.budget_tokens[-1]) / context
    for whose, (colour, recovery) in curves.items():
        each = recovery.reshape(-1, len(shares))
        axis.plot(
            shares, each.T, color=colour, linewidth=0.6, alpha=max(0.04, min(0.5, 16 / len(each)))
        )
        axis.plot(shares, np.median(each, 0), color=colour, linewidth=2.2, label=f"by {whose}")
    axis.axhline(RECOVERY, color="grey", linewidth=0.8, linestyle=":")
    axis.set_xscale("log")
    _percents(axis.xaxis)
    axis.set_xlim(shares[0], shares[-1])
    axis.set_ylim(max(0.0, min(recovery.min() for _, recovery in curves.values()) - 0.01), 1.01)
    axis.set(xlabel=f"budget, share of {context:,} tokens", ylabel="recovery")
    axis.set_title("recovery of every head, and the median", fontsize=10)
    axis.legend(fontsize=8, frameon=False, loc="lower right")


def _contexts(axis: "Axes", heads: CurvesForm, architecture: Architecture) -> None:
    """What each head needs at the longest context over what it needs at the shortest."""
    shares = head_shares(heads)
    first, last = (
        np.minimum(shares[place], reaches(architecture, context) / context).ravel()
        for place, context in ((0, heads.context_tokens[0]), (-1, heads.context_tokens[-1]))
    )
    axis.plot(first, last, ".", color=ORACLE, alpha=0.5)
    ends = min(first.min(), last.min()), max(first.max(), last.max())
    axis.plot(ends, ends, color="grey", linewidth=0.8, linestyle=":")
    axis.set(xscale="log", yscale="log")
    _percents(axis.xaxis, axis.yaxis)
    axis.set_xlabel(f"share of {heads.context_tokens[0]:,} tokens")
    axis.set_ylabel(f"share of {heads.context_tokens[-1]:,} tokens")
    correlation = spearman(first, last)
    found = "" if correlation is None else f": rank correlation {correlation:.2f}"
    axis.set_title(f"the same heads at both contexts{found}", fontsize=10)


def _correlations(axis: "Axes", every: Sequence[Stability]) -> None:
    pairs = sorted(every, key=lambda pair: pair.model or 0.0)[:PAIRS_SHOWN]
    least = f", {len(pairs)} least of {len(every)}" if len(pairs) < len(every) else ""
    axis.set_title(f"rank correlation: all heads (bar), layers (dots){least}", fontsize=10)
    lowest = 0.0
    for place, pair in enumerate(pairs):
        axis.barh(place, pair.model or 0.0, height=0.7, color="#9ec5e0")
        layers = [figure for figure in pair.layers if figure is not None]
        axis.plot(layers, [place] * len(layers), ".", color=ORACLE, markersize=4)
        lowest = min([lowest, pair.model or 0.0, *layers])
    axis.set_yticks(range(len(pairs)), [" / ".join(pair.between) for pair in pairs], fontsize=7)
    axis.set_ylim(len(pairs) - 0.5, -0.5)
    axis.set_xlim(lowest - 0.03 if lowest < 0 else 0.0, 1.03)
    axis.axvline(0, color="black", linewidth=0.8)


def _percents(*axes: "XAxis | YAxis") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    for axis in axes:
        axis.set_major_locator(LogLocator(subs=TICKS))
        axis.set_major_formatter(_percent)
        axis.set_minor_formatter(NullFormatter())


def _percent(share: float, _place: float) -> str:
    return f"{100 * share:.3g} %"


def _whole_numbers(*axes: "XAxis | YAxis") -> None:
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator(integer=True))
