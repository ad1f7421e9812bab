"""Each device's load per method, busy and idle, summed over layers."""

from pathlib import Path

import numpy as np

from profiles.errors import HplbError
from solver.report.comparison import Row, by_problem, heading, method_of

BUSY, IDLE = "#2f6f9f", "#e3b23c"


def plot_loads(rows: list[Row], path: Path) -> None:
    """Write one panel per GPU count and deployment, one group of bars per method."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels = by_problem(rows)
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(11, 3.0 * len(panels)), squeeze=False, layout="constrained"
    )
    for axis, (problem, members) in zip(axes[:, 0], panels.items(), strict=True):
        gpus = len(members[0].plan.devices)
        width = 0.85 / gpus
        for position, row in enumerate(members):
            loads = np.array([layer.loads_s for layer in row.plan.layers]) * 1e3
            busy = loads.sum(axis=0)
            idle = loads.max(axis=1).sum() - busy
            at = position + (np.arange(gpus) - (gpus - 1) / 2) * width
            axis.bar(at, busy, 0.92 * width, color=BUSY, label="busy" if not position else None)
            axis.bar(
                at, idle, 0.92 * width, busy, color=IDLE, label="idle" if not position else None
            )
        axis.axhline(
            members[0].bound_s * 1e3, color="black", linewidth=0.8, linestyle=":", label="bound"
        )
        axis.set_xticks(range(len(members)), [method_of(row.plan) for row in members])
        axis.set_ylabel("ms, all layers")
        axis.set_title(problem, loc="left", fontsize=10)
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=8, ncols=3, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{heading(rows[0].plan)} load of each device")
    try:
        figure.savefig(path, dpi=130, format="png")
    except (OSError, ValueError) as error:
        raise HplbError(f"{path}: the plot cannot be written: {error}") from None
    finally:
        plt.close(figure)
