"""Budgets chosen on some prompts, judged on others: scope, floor, curve, margin, objective.

python benchmarks/budgets.py --held-out PROFILE [--profile reference-model] [--density ...]

PROFILE was measured on other prompts (`hplb profiles prompts --split held_out`, another seed) in
blocks of the same size. All variants compute at most as many blocks as `uniform` does at a density.
"""

import argparse
import sys
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.report import arguments, deliver, table_to
from executor.evaluation.density import Fitted, Setting, fit, uniform_within
from profiles.catalogue import REFERENCE_PROFILE, load_profile
from profiles.cost.work import budget_pieces
from profiles.heads import CurvesForm
from profiles.model import ModelProfile
from solver.budgets.curves import Floats, MeasuredCurves
from solver.budgets.options import BudgetOptions, Curve, Policy


@dataclass(frozen=True)
class Variant:
    """A way to choose budgets; floors are in blocks."""

    name: str
    policy: Policy
    scope: str = "layer"
    floor_blocks: int = 8
    curve: Curve | None = None
    margin: float = 0.0


VARIANTS = (
    Variant("uniform", "uniform"),
    Variant("shifting (the paper)", "max_min_shifting"),
    Variant("max_min", "max_min"),
    Variant("max_min, whole model", "max_min", scope="model"),
    Variant("max_min, floor of 2 blocks", "max_min", floor_blocks=2),
    Variant("max_min, floor of 4 blocks", "max_min", floor_blocks=4),
    Variant("max_min, floor of 12 blocks", "max_min", floor_blocks=12),
    Variant("max_min, oracle's curves", "max_min", curve="oracle"),
    Variant("max_min, 1 deviation less", "max_min", margin=1.0),
)


@dataclass(frozen=True, eq=False)
class Marginal(Setting):
    """A setting whose budgets keep a margin below the mean curves."""

    margin: float = 0.0

    def options(
        self, policy: Policy, scope: str, pieces: int, total: str = "tiles", error: str = "output"
    ) -> BudgetOptions:
        """As in a setting, with the margin."""
        found = super().options(policy, scope, pieces, total, error)
        return found.model_copy(update={"margin": self.margin}) if self.margin else found


def selected(profile: ModelProfile, setting: Setting, tokens: Floats) -> Floats:
    """What the executor's selector recovers of budgets [layers, heads], by a profile's curves."""
    assert isinstance(profile.heads, CurvesForm)
    curves = MeasuredCurves.of(profile.heads, "selected").at(setting.workload)
    blocks = budget_pieces(np.asarray(tokens, dtype=np.float64), setting.workload)
    return curves.at(blocks)


def chosen(profile: ModelProfile, context: int, density: float, variant: Variant) -> Fitted:
    """The variant's budgets: at most the blocks that `uniform` computes at this density."""
    assert profile.measurement is not None
    size = profile.measurement.block_tokens
    setting = Marginal(
        profile,
        context,
        size,
        [context],
        variant.floor_blocks * size,
        variant.curve,
        variant.margin,
    )
    like = uniform_within(setting, density)
    if variant.policy == "uniform":
        return like
    return fit(
        setting,
        lambda pieces: setting.allocate(variant.policy, variant.scope, pieces),
        like.tiles,
        like.pieces,
    )


def judged(
    profile: ModelProfile, held_out: ModelProfile, context: int, density: float, variant: Variant
) -> dict[str, object]:
    """One row: recovery promised, and recovery on the held-out prompts."""
    assert profile.measurement is not None
    assert isinstance(profile.heads, CurvesForm)
    found = chosen(profile, context, density, variant)
    setting = Setting(profile, context, profile.measurement.block_tokens, [context], 1)
    promised, kept = (selected(p, setting, found.tokens) for p in (profile, held_out))
    return {
        "context": context,
        "density": density,
        "variant": variant.name,
        "computed": found.tiles / setting.dense_tiles,
        "promised_least": float(promised.min()),
        "held_out_least": float(kept.min()),
        "held_out_mean": float(kept.mean()),
        "worst_shortfall": float((promised - kept).max()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default=REFERENCE_PROFILE)
    parser.add_argument("--held-out", required=True)
    parser.add_argument("--contexts", default="2048")
    parser.add_argument("--density", default="0.1,0.2,0.3,0.5")
    given = arguments(parser)
    profile, held_out = load_profile(given.profile), load_profile(given.held_out)
    rows = [
        judged(profile, held_out, int(context), float(density), variant)
        for context in given.contexts.split(",")
        for density in given.density.split(",")
        for variant in VARIANTS
    ]
    table = Table(title="recovery, percent: promised by the calibration prompts, and held out")
    heads = ("context", "density", "variant", "blocks", "least promised", "least held out")
    for head in (*heads, "mean", "worst shortfall"):
        table.add_column(head, justify="left" if head == "variant" else "right")
    for row in rows:
        shares = [f"{100 * float(str(value)):.1f}" for value in list(row.values())[3:]]
        table.add_row(str(row["context"]), str(row["density"]), str(row["variant"]), *shares)
    Console(file=table_to(given.json), width=140).print(table)
    deliver(given.json, profile=profile.digest, held_out=held_out.digest, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
