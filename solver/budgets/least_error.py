"""The `least_error` policy: budgets that move what the heads put out the least.

Minimises the sum over heads of E_h(b_h) (`solver.budgets.least_loss`), E_h the measured error of
the head's output at a budget, as a share of the residual stream that it is added to
(`profiles.heads.CurvesForm.output_error`), or weighed by the loss' gradient there
(`gradient_error`). Errors of different heads and layers are taken to be independent: their squares
add up. Between measured budgets, as shares of what is in reach, errors are interpolated linearly,
between measured contexts linearly in log(context), like recovery (`solver.budgets.curves`).
"""

import numpy as np

from profiles.cost.work import Workload, budget_pieces
from profiles.heads import CurvesForm, LossPerError
from profiles.model import ModelProfile
from solver.budgets.curves import Floats, Ints, by_window, interpolate, neighbours
from solver.budgets.errors import BudgetError
from solver.budgets.options import Error

MAX_ENTRIES = 2**24
"""Heads x pieces: a table of 128 MiB."""


def error_table(profile: ModelProfile, error: Error, workload: Workload) -> Floats:
    """Errors of every whole-piece budget, `[layers, heads, pieces]`: entry i is i + 1 pieces.

    None rises with the budget, and all keys in reach leave none. Raises BudgetError for a profile
    without, and for a table of more than MAX_ENTRIES.
    """
    form = profile.heads
    figures = None
    if isinstance(form, CurvesForm):
        figures = form.output_error if error == "output" else form.gradient_error
    if not isinstance(form, CurvesForm) or figures is None:
        raise BudgetError(
            f"budget.policy: 'least_error' needs {error} errors, but profile {profile.name!r} has "
            f"none; measure it with `hplb profiles measure`"
            f"{' --gradients' if error == 'gradient' else ''}, or use policy 'uniform'"
        )
    layers, heads = form.shape()
    entries = layers * heads * workload.context_pieces
    if entries > MAX_ENTRIES:
        raise BudgetError(
            f"policy 'least_error': {entries} head-pieces at a context of "
            f"{workload.context_tokens} tokens are more than the {MAX_ENTRIES} it can choose from; "
            "use larger pieces, or policy 'max_min', which has no such limit"
        )
    measured = np.array(figures, dtype=np.float64)
    contexts = form.context_tokens
    if error == "gradient":
        measured, contexts = measured[:, :, None], contexts[:1]
    pieces = np.arange(1, workload.context_pieces + 1)
    tokens = np.minimum(pieces * workload.piece_tokens, workload.context_tokens)
    lower, upper, weight = neighbours(contexts, workload.context_tokens)
    found = np.empty((layers, heads, len(pieces)))
    for alike, window in by_window(profile.architecture.windows, layers):
        reach = min(window, workload.context_tokens)
        wanted = (np.minimum(tokens, reach) / reach)[None, None]
        below, above = (
            _at(
                np.array(form.budget_tokens[i]) / min(window, contexts[i]),
                measured[alike, :, i],
                wanted,
            )
            for i in (lower, upper)
        )
        found[alike] = (1 - weight) * below + weight * above
    return found


def loss_ratio(profile: ModelProfile) -> LossPerError:
    """Nats a token by summed output error; BudgetError for a profile that is not calibrated."""
    form = profile.heads
    if not isinstance(form, CurvesForm) or form.loss_per_error is None:
        raise BudgetError(
            f"budget.loss: profile {profile.name!r} does not say what its errors cost the loss; "
            "let `hplb calibrate` find out, or give tokens instead"
        )
    return form.loss_per_error


def summed_error(profile: ModelProfile, tokens: Ints, workload: Workload) -> float:
    """Output errors of budgets `[layers, heads]` in tokens, added up over the model's heads.

    Raises BudgetError for a profile without.
    """
    pieces = budget_pieces(np.asarray(tokens, dtype=np.float64), workload)
    table = error_table(profile, "output", workload)
    return float(np.take_along_axis(table, pieces[..., None] - 1, axis=2).sum())


def _at(shares: Floats, errors: Floats, wanted: Floats) -> Floats:
    """Errors `[layers, heads, points]` measured at `shares` of what is in reach, at those wanted.

    Below the least measured share they are as there: no list is shorter.
    """
    inside = shares < 1
    falling = np.minimum.accumulate(errors[..., inside], axis=-1)
    first = falling[..., :1] if inside.any() else errors[..., :1]
    knots = np.concatenate(([0.0], shares[inside], [1.0]))
    values = np.concatenate([first, falling, np.zeros_like(first)], axis=-1)
    return -interpolate(knots, -values, wanted)
