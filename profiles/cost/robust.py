"""Robust non-negative regression of seconds on work, with a heavy-tailed prior: arrays only.

Iteratively reweighted least squares with Huber's weights (1964), their scale held at that of a
first, more robust fit as in MM-estimation (Yohai 1987). The prior is a Cauchy distribution around
each coefficient's prior value, or around its prior distance from another coefficient, so that it
decides where the data say nothing and lets go, however far off it was, where they do.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

HUBER_SIGMAS = 1.345
SIGMA_PER_MAD = 1.4826
LEAST_NOISE = 0.01
"""Clocks and chips repeat no better than this: a perfect fit is not taken for certainty."""
PRIOR_SPREAD = 1.0
"""Half-width of the prior, in prior coefficients; its tail leaves room for orders of magnitude."""
LARGEST_RATIO = 1000.0
LEAST_BELIEVED = 1e-3
"""Where a ratio starts whose prior is 0."""
ROUNDS = 30
CONVERGED = 1e-5
SMALLEST_SINGULAR = 1e-14


@dataclass(frozen=True, eq=False)
class Fit:
    """Coefficients as ratios to their scale, `[features]`, with their standard deviations.

    `residuals` [samples] are relative and bounded by 1; `noise` is their robust sigma.
    """

    ratios: Floats
    std: Floats
    residuals: Floats
    noise: float


def robust_fit(
    units: Floats, seconds: Floats, weights: Floats, prior: Floats, follows: Ints
) -> Fit:
    """Fit `units [samples, features] @ ratios` to `seconds [samples]`, ratios from 0 to 1000.

    `units` are seconds at ratio 1; `weights` [samples] are how many observations each sample
    counts for; `prior` [features] are the ratios believed in before; `follows` [features] is the
    feature that each one's ratio is believed to move with, itself where it is with none.
    """
    problem = _Problem(units, seconds, weights, prior, _apart(follows))
    # One common factor for the whole chip is a start that no single sample can drag away. Of what
    # always goes together, what is believed to cost something then explains the time.
    believed = np.maximum(prior, LEAST_BELIEVED)
    ratios = believed * weighted_median(seconds / (units @ believed), weights)
    # Nearly least absolute deviations first: of two halves that disagree they side with the
    # heavier, and the noise around it stays small enough to tell the other's as outliers.
    ratios = problem.settle(ratios, LEAST_NOISE)
    noise = problem.noise(ratios)
    ratios = problem.settle(ratios, noise)
    system, _ = problem.equations(ratios, noise)
    return Fit(ratios, _std(system), problem.residuals(ratios), noise)


def weighted_median(values: Floats, weights: Floats) -> float:
    """The least value that half of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(cumulative, cumulative[-1] / 2)]])


@dataclass(frozen=True, eq=False)
class _Problem:
    """What `robust_fit` is given; `apart` as `_apart` makes it of what follows what."""

    units: Floats
    seconds: Floats
    weights: Floats
    prior: Floats
    apart: Floats

    def residuals(self, ratios: Floats) -> Floats:
        """(predicted - measured) / the larger of the two, `[samples]`.

        Relative, and bounded on both sides: a time far too short has no more leverage than one far
        too long.
        """
        predicted = self.units @ ratios
        larger = np.maximum(predicted, self.seconds)
        return np.asarray((predicted - self.seconds) / larger, dtype=np.float64)

    def noise(self, ratios: Floats) -> float:
        """Standard deviation of normal residuals, from their median absolute value.

        Widened where a fit of so many features passes close to few samples whatever they are
        (Rousseeuw and Leroy, Robust Regression and Outlier Detection, 1987, chapter 5).
        """
        sizes, weights = np.abs(self.residuals(ratios)), self.weights
        effective = weights.sum() ** 2 / (weights**2).sum()
        few = 1 + 5 / max(effective - np.count_nonzero(self.units.any(axis=0)), 1)
        return float(few * max(SIGMA_PER_MAD * weighted_median(sizes, weights), LEAST_NOISE))

    def settle(self, ratios: Floats, noise: float) -> Floats:
        """Reweight and solve until the ratios stay, `[features]`."""
        for _ in range(ROUNDS):
            system, target = self.equations(ratios, noise)
            previous, ratios = ratios, _bounded_least_squares(system, target)
            if np.all(np.abs(ratios - previous) <= CONVERGED * np.maximum(1, ratios)):
                break
        return ratios

    def equations(self, ratios: Floats, noise: float) -> tuple[Floats, Floats]:
        """System [samples + features, features] and target, rows in their own standard deviations.

        The prior's equations come last, one for each feature.
        """
        threshold = HUBER_SIGMAS * noise
        huber = threshold / np.maximum(np.abs(self.residuals(ratios)), threshold)
        larger = np.maximum(self.units @ ratios, self.seconds)
        rows = np.sqrt(self.weights * huber) / (noise * larger)
        pull = 1 / np.hypot(PRIOR_SPREAD, self.apart @ (ratios - self.prior))
        system = np.vstack([self.units * rows[:, None], self.apart * pull[:, None]])
        return system, np.concatenate([self.seconds * rows, self.apart @ self.prior * pull])


def _apart(follows: Ints) -> Floats:
    """What the prior is of, [features, features]: each ratio less the one that it follows."""
    each = np.eye(len(follows))
    return np.asarray(each - each[follows] * (follows != np.arange(len(follows)))[:, None])


def _condensed(system: Floats) -> Floats:
    """As many rows as columns, with the same solution: a square root of the Gram matrix."""
    scale = np.linalg.norm(system, axis=0)
    scaled = system / np.where(scale > 0, scale, 1)
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    return np.asarray(np.sqrt(np.maximum(values, 0))[:, None] * vectors.T * scale)


def _bounded_least_squares(system: Floats, target: Floats) -> Floats:
    condensed = _condensed(np.column_stack([system, target]))
    from scipy.optimize import lsq_linear  # slow to import

    coefficients, values = condensed[:, :-1], condensed[:, -1]
    # Exact, but where a step has no length scipy's divides by it: then the interior method.
    with np.errstate(divide="ignore", invalid="ignore"):
        solved = lsq_linear(coefficients, values, (0, LARGEST_RATIO), method="bvls").x
    if not np.isfinite(solved).all():
        solved = lsq_linear(coefficients, values, (0, LARGEST_RATIO), method="trf").x
    return np.clip(solved, 0, LARGEST_RATIO)


def _std(system: Floats) -> Floats:
    """Standard deviations of a system's solution, at most what the prior's own equation leaves."""
    condensed = _condensed(system)
    scale = np.linalg.norm(condensed, axis=0)
    _, singular, directions = np.linalg.svd(condensed / scale)
    singular = np.maximum(singular, SMALLEST_SINGULAR)
    std = np.linalg.norm(directions / singular[:, None], axis=0) / scale
    pull = np.diag(system[-system.shape[1] :])
    return np.asarray(np.minimum(std, 1 / pull), dtype=np.float64)
