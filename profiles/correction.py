"""Curves corrected by what was observed in use: a profile measured on other work is kept going.

Of a head that loses c times as much of its attention as expected at the budget it runs with, the
curve keeps its shape, and every loss on it is c times as large: R'(b) = 1 - min(1, c (1 - R(b))).
One point cannot say more. Where nothing is recovered, or everything, that stays. c is of a head at
every context, or of each measured one apart where that is what was observed.
"""

import numpy as np
from numpy.typing import NDArray

from profiles.errors import ProfileError
from profiles.heads import Curves, CurvesForm
from profiles.model import ModelProfile

Floats = NDArray[np.float64]
LEAST, MOST = 1 / 8, 1e6
"""Times as much loss. Easy prompts must not cut a budget to nothing; hard ones are believed, for a
head that was promised to lose next to nothing is the one whose fall matters."""
MARK = "; corrected by what "
SUFFIX = ".corrected"


def corrected(
    profile: ModelProfile, expected: Floats, observed: Floats, seen_by: str
) -> ModelProfile:
    """The profile as observed; its source says from which one, and by whose observation.

    expected, observed [layers, heads], or of the measured contexts [layers, heads, contexts]:
    recovery at the budgets in use, NaN observed where nothing is known. `seen_by` names the
    observer. A correction of a correction names the newest parent only: every parent says its own.
    Raises ProfileError for a profile without recovery curves, and for figures of another shape or
    beyond [0, 1].
    """
    heads = profile.heads
    if not isinstance(heads, CurvesForm):
        raise ProfileError(
            f"profile {profile.name!r} has the form {heads.form!r}: only recovery_curves promise "
            "a recovery that could be corrected"
        )
    factor = loss_ratio(expected, observed)
    if factor.shape not in (heads.shape(), (*heads.shape(), len(heads.context_tokens))):
        raise ProfileError(
            f"expected and observed recovery of shape {factor.shape} for a profile of "
            f"{heads.shape()[0]} layers x {heads.shape()[1]} heads"
        )
    changed: dict[str, Curves] = {"recovery": _scaled(heads.recovery, factor)}
    if heads.selected_recovery is not None:
        changed["selected_recovery"] = _scaled(heads.selected_recovery, factor)
    name, source = profile.name.removesuffix(SUFFIX), profile.source.partition(MARK)[0]
    note = f"{MARK}{seen_by} (from profile {profile.digest[:12]})"
    return profile.model_copy(
        update={
            "name": name[: 128 - len(SUFFIX)] + SUFFIX,
            "source": source[: 2000 - len(note)] + note,
            "heads": heads.model_copy(update=changed),
        }
    )


def loss_ratio(expected: Floats, observed: Floats) -> Floats:
    """Loss observed over loss expected, within [LEAST, MOST]; 1 where observed is NaN.

    Raises ProfileError for anything else that is no share.
    """
    known = ~np.isnan(observed)
    for name, values in (("expected", expected), ("observed", observed[known])):
        if not ((values >= 0) & (values <= 1)).all():
            raise ProfileError(f"{name} recovery: must be shares of attention mass from 0 to 1")
    if expected.shape != observed.shape:
        raise ProfileError(
            f"observed recovery of shape {observed.shape}, expected of {expected.shape}"
        )
    lost, promised = 1 - np.where(known, observed, expected), 1 - expected
    ratio = np.divide(lost, promised, out=np.full(lost.shape, MOST), where=promised > lost / MOST)
    ratio = np.where(known & (lost != promised), ratio, 1.0)
    return np.clip(ratio, LEAST, MOST)


def _scaled(curves: Curves, factor: Floats) -> Curves:
    recovery = np.asarray(curves, dtype=np.float64)
    of_contexts = factor if factor.ndim == recovery.ndim - 1 else factor[..., None]
    losing = np.minimum(1.0, of_contexts[..., None] * (1 - recovery))
    scaled: Curves = np.where(recovery > 0, 1 - losing, 0.0).tolist()
    return scaled
