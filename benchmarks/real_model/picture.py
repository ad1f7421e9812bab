"""One picture: loss over dense attention against the pairs that are computed, policy by policy."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CONTEXT = 2048
SIZES = {
    "64x64": "blocks of 64 x 64",
    "64x16": "64 query rows x 16 keys",
    "32x16r4": "32 query rows x 16 keys",
}
COLOURS = {
    "uniform": "#555555",
    "least_error_model": "#0072b2",
    "least_error": "#56b4e9",
    "least_gradient_error": "#009e73",
    "max_min": "#d55e00",
    "max_min_model": "#e69f00",
    "mean_recovery": "#cc79a7",
    "shifting": "#f0a37a",
    "streaming_llm": "#b3b3b3",
    "top_p": "#8c6bb1",
    "xattention": "#4d004b",
}


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Sizes beside each other on one scale of losses, 95 % intervals as bars."""
    by_policy: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line["context"] == CONTEXT and line["size"] in SIZES:
            by_policy[line["size"]][line["policy"]].append(line)
    shown = [size for size in SIZES if by_policy[size]]
    if not shown:
        return
    figure, panels = plt.subplots(
        1, len(shown), figsize=(4.6 * len(shown), 4.4), sharey=True, squeeze=False
    )
    for size, panel in zip(shown, panels[0], strict=True):
        for policy in [name for name in COLOURS if name in by_policy[size]]:
            found = sorted(by_policy[size][policy], key=lambda line: line["pairs"])
            panel.errorbar(
                [100 * line["pairs"] for line in found],
                [line["loss"] for line in found],
                [line["half_interval"] or 0 for line in found],
                color=COLOURS[policy],
                marker="o",
                markersize=4,
                capsize=2,
                linewidth=2 if policy in ("uniform", "least_error_model") else 1,
                label=f"{policy} ({max(line['documents'] for line in found)} documents)",
            )
        panel.set_yscale("log")
        panel.set_title(SIZES[size])
        panel.set_xlabel("pairs computed, % of dense attention's")
        panel.grid(alpha=0.3, which="both", linewidth=0.5)
        panel.legend(fontsize=7, frameon=False)
    panels[0][0].set_ylabel(f"loss over dense, nats a token ({CONTEXT:,} tokens)")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)
