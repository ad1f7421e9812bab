"""What errors of heads' outputs cost the model's loss: the ratio that losses are promised by.

A few prompts are read with dense attention and within `least_error` budgets at some densities. The
increase of the loss is close to proportional to the budgets' summed `output_error`
(`profiles.heads.CurvesForm`): a prompt's ratio is that of both added up over the densities
(Cochran, Sampling Techniques, 1977, chapter 6), so that noise counts for little where little is
lost, and densities far below those planned for should be left out: there the loss rises faster.
Errors are the budgets' own, whatever the prompt; the interval of the mean ratio is Student's.

Budgets are shared out over the model, as freely as they can be: what is chosen by measured errors
goes where they were measured too low, and those of narrower scope lose less for as much error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from executor.errors import EvaluationError
from executor.evaluation.density import Ints, Setting, fit, uniform_within
from executor.evaluation.loaded import check_positions, check_profile
from executor.evaluation.losses import Floats, losses
from executor.evaluation.texts import windows
from executor.inference.budget_policy import BudgetPolicy
from profiles.heads import CurvesForm, LossPerError
from profiles.measuring.loading import Loaded
from profiles.model import ModelProfile
from profiles.time_left import Show
from solver.budgets.least_error import summed_error

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Point:
    """Budgets of a density: their summed output error, and the mean increase of the loss."""

    density: float
    error: float
    nats: float


@dataclass(frozen=True, eq=False)
class Calibrated:
    """The ratio, and the points that it comes from."""

    per_error: LossPerError
    points: list[Point]


def calibrate(
    loaded: Loaded,
    profile: ModelProfile,
    data: Path,
    context: int,
    densities: Sequence[float],
    prompts: int,
    progress: Show,
) -> Calibrated:
    """Read `prompts` windows of `context` tokens, spread evenly over the data.

    Raises EvaluationError for a model, data or densities that say nothing about the profile, and
    BudgetError for a profile without output errors.
    """
    _check(loaded, profile, context, densities, prompts)
    setting = _setting(profile, context)
    budgets = [_budgets(setting, density) for density in densities]
    errors = [summed_error(profile, tokens, setting.workload) for tokens in budgets]
    if not sum(errors):
        raise EvaluationError(
            "--densities: budgets of these shares make no errors; give smaller ones"
        )
    found = windows(data, loaded.tokenizer, context, None, "--data")
    if len(found) < prompts:
        raise EvaluationError(
            f"--data {data}: has {len(found)} windows of {context} tokens, fewer than {prompts} "
            "--windows"
        )
    chosen = [found[(2 * n + 1) * len(found) // (2 * prompts)] for n in range(prompts)]
    sizes = setting.workload
    policies = [
        BudgetPolicy(
            tokens,
            selection=profile.selection,
            block_tokens=sizes.block_tokens,
            piece_tokens=sizes.piece_tokens,
            as_chosen=True,
        )
        for tokens in budgets
    ]
    nats, _ = losses(loaded, chosen, [None, *policies], sizes.block_tokens, progress)
    lost = nats[:, 1:] - nats[:, :1]
    points = [
        Point(*each) for each in zip(densities, errors, lost.mean(axis=0).tolist(), strict=True)
    ]
    mean, low, high = _interval(lost.sum(axis=1) / sum(errors))
    if mean <= 0:
        raise EvaluationError(
            f"--densities: the loss does not rise within these budgets ({lost.mean():+.4f} nats a "
            "token): nothing to calibrate by; give smaller shares, or more --windows"
        )
    per_error = LossPerError(
        mean=mean, low=max(low, 0.0), high=high, context_tokens=context, prompts=prompts
    )
    return Calibrated(per_error, points)


def with_ratio(profile: ModelProfile, per_error: LossPerError) -> ModelProfile:
    """The profile of recovery curves, which it is, with what its errors cost."""
    assert isinstance(profile.heads, CurvesForm)
    heads = profile.heads.model_copy(update={"loss_per_error": per_error})
    return profile.model_copy(update={"heads": heads})


def _check(
    loaded: Loaded, profile: ModelProfile, context: int, densities: Sequence[float], prompts: int
) -> None:
    check_profile(loaded, profile)
    measured = profile.measurement
    if measured is not None and measured.weights_sha256 != loaded.weights_sha256:
        raise EvaluationError(
            f"--model: its weights ({loaded.weights_sha256[:12]}) are not those that profile "
            f"{profile.name} was measured on ({measured.model}, {measured.weights_sha256[:12]})"
        )
    if prompts < 2:
        raise EvaluationError(f"--windows: {prompts} must be 2 at least, for an interval")
    check_positions(loaded, "--context", context)
    for density in densities:
        if not 0 < density < 1:
            raise EvaluationError(f"--densities: {density} must be above 0 and below 1")


def _setting(profile: ModelProfile, context: int) -> Setting:
    """The floor is what every list has anyway: a query block's own keys."""
    block, piece = profile.sizes()
    return Setting(profile, context, block, [context], floor_tokens=block, piece_tokens=piece)


def _budgets(setting: Setting, density: float) -> Ints:
    """Tokens [layers, heads] that compute at most this share of dense attention's tiles."""
    start = uniform_within(setting, density)
    target = int(density * setting.dense_tiles)

    def budgets(pieces: int) -> Ints:
        return setting.allocate("least_error", "model", pieces)

    return fit(setting, budgets, target, start.pieces).tokens


def _interval(ratios: Floats) -> tuple[float, ...]:
    """The mean, and the ends of its 95 % interval."""
    from scipy.stats import t  # slow to import

    mean, error = ratios.mean(), ratios.std(ddof=1) / np.sqrt(len(ratios))
    half = t.ppf((1 + LEVEL) / 2, len(ratios) - 1) * error
    return float(mean), float(mean - half), float(mean + half)
