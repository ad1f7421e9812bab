"""Recovery curves as the paper draws them (S-HPLB, arXiv 2603.10353, figures 3, 4 and 6)."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from profiles.errors import HplbError, ProfileError
from profiles.heads import CurvesForm
from profiles.heterogeneity import RECOVERY, head_shares
from profiles.model import ModelProfile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.image import AxesImage

SHARE = 1 / 8
"""The budget of the heat map, of the longest context: the paper's 4,096 of 32K."""
LAYERS_SHOWN = 4
PAIRS_SHOWN = 20


def plot_profile(profile: ModelProfile, path: Path) -> None:
    """Write four panels as PNG: recovery by head, needs by rank, by context, rank correlations.

    Raises ProfileError for a profile of no curves, HplbError where the file cannot be written.
    """
    heads = profile.heads
    if not isinstance(heads, CurvesForm):
        raise ProfileError(f"{profile.name}: has {heads.form}; only recovery curves are plotted")
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(12, 8), layout="constrained")
    image = _heat_map(axes[0, 0], heads)
    figure.colorbar(image, ax=axes[0, 0], label="recovery")
    _by_rank(axes[0, 1], heads)
    _by_context(axes[1, 0], heads)
    _correlations(axes[1, 1], profile)
    figure.suptitle(profile.name)
    try:
        figure.savefig(path, dpi=130, format="png")
    except (OSError, ValueError) as error:
        raise HplbError(f"{path}: the plot cannot be written: {error}") from None
    finally:
        plt.close(figure)


def _heat_map(axis: "Axes", heads: CurvesForm) -> "AxesImage":
    budgets, context = np.array(heads.budget_tokens[-1]), heads.context_tokens[-1]
    point = int(np.abs(budgets - SHARE * context).argmin())
    recovery = np.array(heads.recovery)[:, :, -1, point]
    image = axis.imshow(recovery, aspect="auto", vmin=0, vmax=1, cmap="viridis")
    axis.set(xlabel="head", ylabel="layer")
    _whole_numbers(axis.xaxis, axis.yaxis)
    axis.set_title(f"recovery with {budgets[point]} of {context} tokens", fontsize=10)
    return image


def _by_rank(axis: "Axes", heads: CurvesForm) -> None:
    shares = head_shares(heads)[-1]
    shown = np.unique(np.linspace(0, len(shares) - 1, LAYERS_SHOWN).round().astype(int))
    for layer in shown:
        axis.plot(np.sort(shares[layer]), marker=".", label=f"layer {layer}")
    axis.set(xlabel="heads of a layer, sorted", ylabel="share of the context")
    axis.set_ylim(0, 1.05 * shares.max())
    _whole_numbers(axis.xaxis)
    axis.set_title(f"budget for recovery {RECOVERY}", fontsize=10)
    axis.legend(fontsize=8, frameon=False)


def _by_context(axis: "Axes", heads: CurvesForm) -> None:
    shares = head_shares(heads)
    layer = int(np.ptp(shares[-1], axis=1).argmax())
    for context, needed in zip(heads.context_tokens, shares, strict=True):
        axis.plot(needed[layer], marker=".", label=f"{context} tokens")
    axis.set(xlabel="head", ylabel="share of the context")
    axis.set_ylim(0, 1.05 * shares[:, layer].max())
    _whole_numbers(axis.xaxis)
    axis.set_title(f"the same in layer {layer}, the least alike, by context", fontsize=10)
    axis.legend(fontsize=8, frameon=False)


def _correlations(axis: "Axes", profile: ModelProfile) -> None:
    every = profile.measurement.stability if profile.measurement else []
    pairs = sorted(every, key=lambda pair: pair.model or 0.0)[:PAIRS_SHOWN]
    least = f", the {len(pairs)} least of {len(every)}" if len(pairs) < len(every) else ""
    axis.set_title(f"rank correlation: all heads (bar), by layer (dots){least}", fontsize=10)
    if not pairs:
        axis.text(0.5, 0.5, "one context and one task", ha="center", va="center")
        axis.set_axis_off()
        return
    for place, pair in enumerate(pairs):
        axis.barh(place, pair.model or 0.0, color="#9ec5e0")
        layers = [figure for figure in pair.layers if figure is not None]
        axis.plot(layers, [place] * len(layers), ".", color="#2f6f9f")
    axis.set_yticks(range(len(pairs)), [" / ".join(pair.between) for pair in pairs], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlim(-1.05, 1.05)
    axis.axvline(0, color="black", linewidth=0.8)


def _whole_numbers(*axes: "XAxis | YAxis") -> None:
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator(integer=True))
