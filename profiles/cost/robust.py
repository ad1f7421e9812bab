"""Robust non-negative regression of seconds on work, with a heavy-tailed prior: arrays only.

Iteratively reweighted least squares. Residuals are Huber's (Robust Estimation of a Location
Parameter, 1964); the prior is a Cauchy distribution around each coefficient's prior value, so
that it decides where the data say nothing and lets go, however far off it was, where they do.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

Floats = NDArray[np.float64]

HUBER_SIGMAS = 1.345
SIGMA_PER_MAD = 1.4826
LEAST_NOISE = 0.01
"""Clocks and chips repeat no better than this: a perfect fit is not taken for certainty."""
PRIOR_SPREAD = 1.0
"""Half-width of the prior, in prior coefficients; its tail leaves room for orders of magnitude."""
LARGEST_RATIO = 1000.0
ROUNDS = 60
CONVERGED = 1e-7


@dataclass(frozen=True, eq=False)
class Fit:
    """Coefficients as ratios to their scale, `[features]`, with their standard deviations.

    `residuals` [samples] are bounded by 1, see `residuals_of`; `noise` is their robust sigma.
    """

    ratios: Floats
    std: Floats
    residuals: Floats
    noise: float


def robust_fit(units: Floats, seconds: Floats, weights: Floats, prior: Floats) -> Fit:
    """Fit `units [samples, features] @ ratios` to `seconds [samples]`, ratios from 0 to 1000.

    `units` are seconds at ratio 1; `weights` [samples] are how many observations each sample
    counts for; `prior` [features] are the ratios believed in before.
    """
    # One common factor for the whole chip is a start that no single sample can drag away.
    ratios = np.full(len(prior), weighted_median(seconds / units.sum(axis=1), weights))
    for _ in range(ROUNDS):
        residuals, noise, rows, pull = _reweighted(units, seconds, weights, prior, ratios)
        system = np.vstack([units * rows[:, None], np.diag(pull)])
        target = np.concatenate([seconds * rows, prior * pull])
        previous, ratios = ratios, _bounded_least_squares(system, target)
        if np.all(np.abs(ratios - previous) <= CONVERGED * np.maximum(1, ratios)):
            break
    residuals, noise, rows, pull = _reweighted(units, seconds, weights, prior, ratios)
    information = (units * rows[:, None]).T @ (units * rows[:, None]) + np.diag(pull**2)
    return Fit(ratios, _std(information), residuals, noise)


def residuals_of(units: Floats, seconds: Floats, ratios: Floats) -> Floats:
    """(predicted - measured) / the larger of the two, `[samples]`.

    Relative, and bounded on both sides: a time far too short has no more leverage than one far
    too long.
    """
    predicted = units @ ratios
    return np.asarray((predicted - seconds) / np.maximum(predicted, seconds), dtype=np.float64)


def robust_sigma(residuals: Floats, weights: Floats) -> float:
    """Standard deviation of normal residuals, from their median absolute value."""
    return max(SIGMA_PER_MAD * weighted_median(np.abs(residuals), weights), LEAST_NOISE)


def weighted_median(values: Floats, weights: Floats) -> float:
    """The least value that half of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(cumulative, cumulative[-1] / 2)]])


def _reweighted(
    units: Floats, seconds: Floats, weights: Floats, prior: Floats, ratios: Floats
) -> tuple[Floats, float, Floats, Floats]:
    """Residuals, their noise, and what each sample's and each prior's equation is scaled by."""
    residuals = residuals_of(units, seconds, ratios)
    noise = robust_sigma(residuals, weights)
    threshold = HUBER_SIGMAS * noise
    huber = threshold / np.maximum(np.abs(residuals), threshold)
    rows = np.sqrt(weights * huber) / (noise * np.maximum(units @ ratios, seconds))
    pull = 1 / np.hypot(PRIOR_SPREAD, ratios - prior)
    return residuals, noise, rows, pull


def _bounded_least_squares(system: Floats, target: Floats) -> Floats:
    # The triangle of a QR factorisation has the same solution in [features] rows.
    triangle = np.asarray(np.linalg.qr(np.column_stack([system, target]), mode="r"))
    solved = lsq_linear(triangle[:, :-1], triangle[:, -1], (0, LARGEST_RATIO), method="bvls")
    return np.clip(solved.x, 0, LARGEST_RATIO)


def _std(information: Floats) -> Floats:
    """Standard deviations from an information matrix, inverted at unit diagonal."""
    scale = np.sqrt(np.diag(information))
    covariance = np.linalg.inv(information / np.outer(scale, scale))
    return np.asarray(np.sqrt(np.diag(covariance)) / scale, dtype=np.float64)
