"""The frontier of S-HPLB's Fig. 10: accuracy against computed blocks, and predicted makespan."""

from collections.abc import Sequence
from math import nan
from pathlib import Path

from executor.errors import EvaluationError
from executor.evaluation.lines import Line
from executor.evaluation.methods import DENSE, METHODS

MARKERS = "os^vDPX<>ph*dH8"
APART = 0.3
"""Percent between methods that compute the same."""


def plot_frontier(lines: Sequence[Line], title: str, path: Path) -> None:
    """Write a column of panels for every context, a line for every method.

    `title` says of what they are; it is the picture's own title too (PNG).
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    contexts = list(dict.fromkeys(line.context for line in lines))
    figure, axes = plt.subplots(
        2,
        len(contexts),
        figsize=(1.5 + 6 * len(contexts), 8.5),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    axes[0, 0].set_ylabel("average score, %")
    axes[1, 0].set_ylabel("average score, %")
    for column, context in enumerate(contexts):
        here = [line for line in lines if line.context == context]
        upper, lower = axes[:, column]
        upper.set_title(f"{context:,} tokens", loc="left", fontsize=10)
        upper.set_xlabel("computed share of dense's blocks, % (equal ones side by side)")
        lower.set_xlabel("predicted attention makespan, % of dense's")
        for axis, field in ((upper, "computed"), (lower, "makespan")):
            _panel(axis, here, field, plt.get_cmap("tab20"))
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    try:
        figure.savefig(path, dpi=130, format="png", metadata={"Title": title})
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: the plot cannot be written: {error}") from None
    finally:
        plt.close(figure)


def _panel(axis, here: Sequence[Line], field: str, colours) -> None:  # type: ignore[no-untyped-def]
    for number, name in enumerate(METHODS):
        mine = sorted((x for x in here if x.method == name), key=lambda x: getattr(x, field))
        if not mine:
            continue
        if name == DENSE:
            [dense] = mine
            axis.axhline(100 * dense.average.value, color="black", linewidth=0.9, label=name)
            if dense.average.low is not None and dense.average.high is not None:
                ends = 100 * dense.average.low, 100 * dense.average.high
                axis.axhspan(*ends, color="black", alpha=0.06)
            continue
        averages = [line.average for line in mine]
        aside = APART * (number - len(METHODS) / 2) if field == "computed" else 0.0
        axis.errorbar(
            [100 * getattr(line, field) + aside for line in mine],
            [100 * average.value for average in averages],
            [
                [nan if a.low is None else 100 * (a.value - a.low) for a in averages],
                [nan if a.high is None else 100 * (a.high - a.value) for a in averages],
            ],
            label=name,
            color=colours(2 * (number - 1) % 20 + (number > 10)),
            marker=MARKERS[(number - 1) % len(MARKERS)],
            markersize=4.5,
            linewidth=1.1,
            elinewidth=0.7,
            capsize=2,
        )
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.5)
