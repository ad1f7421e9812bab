"""Refit: rates from recent measurements, on a prior that gives way to them.

See docs/design.md, section 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiles.cost.fitted import FITTED
from profiles.cost.rates import Rates
from profiles.cost.robust import LARGEST_RATIO, Floats, robust_fit
from profiles.cost.roofline import fastest_possible_s, roofline
from profiles.cost.samples import Sample, SampleError
from profiles.cost.work import FEATURES, INDEX
from profiles.device import DeviceProfile

PRODUCTS = ("gathered_tile_flops", "sampled_flops")
"""Products of queries with keys, as dense tiles are: where they were not measured, a chip that
falls short of its data sheet there is believed to fall short as far here."""
GATE_SIGMAS = 4.0
MOST_GATED = 0.25
"""Share of the samples' weight the gate may drop: more surprises than this are a change."""


@dataclass(frozen=True)
class Refit:
    """New rates, and what became of the samples.

    `mean_error_ratio` is the mean of |predicted - measured| / measured over the accepted samples,
    weighted as they were in the fit; None where there were none. `pegged` names the measured
    features whose coefficient ended on a bound (0, or 1000 times the prior).
    """

    rates: Rates
    accepted: int
    rejected_fast: int
    rejected_outliers: int
    mean_error_ratio: float | None
    pegged: tuple[str, ...]


def refit(
    prior: Rates,
    device: DeviceProfile,
    samples: Sequence[Sample],
    *,
    forgetting: float = 0.8,
    source: str = "measurements",
) -> Refit:
    """Rates of `device` in the prior's phase from `samples`, each weighing forgetting ** age.

        roof = roofline(device, "prefill")  # profiles.cost.roofline: what the data sheet allows
        refit(roof, device, samples).rates

    prior: what was believed before; its phase is the samples'. samples: counts of work and the
    seconds it took (`profiles.cost.samples.Sample`). source: names them in the rates.

    Samples faster than the chip are rejected; of the rest, those more than 4 robust standard
    deviations from a robust fit, by at most a quarter of the weight. Coefficients that the samples
    do not determine keep their prior; that of `PRODUCTS` goes with what dense tiles are found to
    cost. What the device's back end is not fitted on costs nothing. Without a usable sample the
    prior is returned as it is.
    Raises SampleError where the prior is another device's or forgetting is not in (0, 1].
    """
    if prior.device != device.name:
        raise SampleError(
            f"prior: the rates are of {prior.device!r}, the samples of {device.name!r}"
        )
    if not 0 < forgetting <= 1:
        raise SampleError(f"forgetting: {forgetting} must be above 0 and at most 1")
    # What the back end is not fitted on is no part of the time.
    fitted = np.isin(FEATURES, FITTED[device.backend][prior.phase])
    samples = [s for s in samples if s.work[fitted].any()]
    possible = [s for s in samples if s.seconds >= fastest_possible_s(device, s.work)]
    rejected_fast = len(samples) - len(possible)
    if not possible:
        return Refit(prior, 0, rejected_fast, 0, None, ())

    # 1. Every coefficient as a ratio to a positive scale; an earlier fit may have left it at 0.
    scale = np.maximum(prior.vector, roofline(device, prior.phase).vector) * fitted
    believed = np.divide(prior.vector, scale, out=np.zeros_like(scale), where=scale > 0)
    units = np.array([s.work for s in possible], dtype=np.float64) * scale
    seconds = np.array([s.seconds for s in possible], dtype=np.float64)
    ages = np.array([s.age for s in possible], dtype=np.float64)
    weights = np.maximum(forgetting ** (ages - ages.min()), 1e-12)

    # 2. A robust fit of everything, the gate, and a fit of what passed it.
    follows = np.arange(len(FEATURES))
    follows[[INDEX[name] for name in PRODUCTS]] = INDEX["dense_tile_flops"]
    first = robust_fit(units, seconds, weights, believed, follows)
    kept = _gate(first.residuals, first.noise, weights)
    units, seconds, weights = units[kept], seconds[kept], weights[kept]
    fit = robust_fit(units, seconds, weights, believed, follows)

    errors = np.abs(units @ fit.ratios - seconds) / seconds
    rates = Rates(
        device=prior.device,
        phase=prior.phase,
        seconds_per=_by_name(fit.ratios * scale),
        std=_by_name(fit.std * scale),
        fitted_to_tokens=max(
            s.context_tokens for s, passed in zip(possible, kept, strict=True) if passed
        ),
        samples=len(seconds),
        source=f"{source}; prior: {prior.source.rpartition('; prior: ')[-1]}",
    )
    return Refit(
        rates=rates,
        accepted=len(seconds),
        rejected_fast=rejected_fast,
        rejected_outliers=len(possible) - len(seconds),
        mean_error_ratio=float(np.average(errors, weights=weights)),
        pegged=_pegged(fit.ratios, units),
    )


def _gate(residuals: Floats, noise: float, weights: Floats) -> NDArray[np.bool_]:
    """Which samples pass, `[samples]`: the worst go first, until the share is used up."""
    worst_first = np.argsort(-np.abs(residuals), kind="stable")
    affordable = np.cumsum(weights[worst_first]) <= MOST_GATED * weights.sum()
    kept = np.ones(len(weights), dtype=bool)
    kept[worst_first] = ~(affordable & (np.abs(residuals[worst_first]) > GATE_SIGMAS * noise))
    return kept


def _pegged(ratios: Floats, units: Floats) -> tuple[str, ...]:
    on_bound = (ratios <= 1e-9) | (ratios >= LARGEST_RATIO * (1 - 1e-9))
    measured = units.any(axis=0)
    return tuple(name for name, peg in zip(FEATURES, on_bound & measured, strict=True) if peg)


def _by_name(values: Floats) -> dict[str, float]:
    return {name: float(value) for name, value in zip(FEATURES, values, strict=True)}
