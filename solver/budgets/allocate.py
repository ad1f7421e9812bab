"""From a profile and a policy to budgets: tokens per head, in whole pieces."""

from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np

from profiles.cost.work import Workload, budget_pieces
from profiles.heads import CurvesForm
from profiles.model import ModelProfile
from profiles.sizes import causal_pieces
from solver.budgets.basis import Basis
from solver.budgets.bounded_loss import cheapest
from solver.budgets.curves import (
    Floats,
    Ints,
    MeasuredCurves,
    RecoveryCurves,
    pieces_in_reach,
)
from solver.budgets.elastic import ElasticRules, Menu, elastic
from solver.budgets.errors import BudgetError
from solver.budgets.least_error import error_table, loss_ratio
from solver.budgets.least_loss import least_loss
from solver.budgets.max_min import max_min
from solver.budgets.options import BudgetOptions, Curve
from solver.budgets.profile import profile_tokens
from solver.budgets.recovery import least_pieces
from solver.budgets.shifting import shift
from solver.deadline import Deadline

ELASTIC_TOLERANCE = 0.01
"""Gap at which a choice of rules is good enough: recovery itself is known no better."""
LOSS_TOLERANCE = 1e-3
"""The same of whole-piece budgets, where the rest is a piece or two of one head."""
CHEAPEST_TOLERANCE = 1e-2
"""The same of a total that keeps a loss: much less than the loss itself is known to."""


@dataclass(frozen=True, eq=False)
class Budgets:
    """tokens [layers, heads]: whole pieces, but never more than the context.

    recovery [layers, heads]: share of attention mass recovered, where the profile has curves: of
    `curve`, a mean over prompts whatever `margin` the budgets were chosen with.
    rules: what `elastic` chose; the tokens are what they give at the context.
    expected, cautious: those curves at the workload's context, means and less the margin.
    gap: of `least_error`, the share of its error (asked for a loss, of its total) that may be above
    the least there is.
    """

    tokens: Ints
    recovery: Floats | None
    warnings: tuple[str, ...]
    rules: ElasticRules | None = None
    curve: Curve | None = None
    expected: RecoveryCurves | None = None
    cautious: RecoveryCurves | None = None
    gap: float | None = None


def allocate(
    profile: ModelProfile,
    basis: Basis | None,
    options: BudgetOptions,
    workload: Workload,
    deadline: Deadline,
) -> Budgets:
    """Give every query head its budget by the policy of settled `options`.

    `basis`: the profile's curves as `options` asks for them, for every workload of a request.
    No head of a layer with a window gets more than the window. Only `elastic` and `least_error` may
    take until the deadline. Raises BudgetError where the policy needs recovery curves, errors or
    mean tokens and has none, or cannot cope with the context's size or the density asked for.
    """
    expected = curves = None
    if basis is None:
        _refuse_curves(profile, options)
    else:
        expected, curves = basis.at(workload)
    warnings = [curves.warning] if curves and curves.warning else []
    rules = gap = None
    match options.policy:
        case "profile":
            heads = profile.heads
            figures = _needed(curves, profile, options) if isinstance(heads, CurvesForm) else heads
            tokens, notes = profile_tokens(figures, workload, options.recovery)
            # Rounded: a mean that is whole but for floating-point noise buys no further piece.
            pieces = budget_pieces(np.round(tokens, 6), workload)
            warnings += notes
        case "dense":
            pieces = np.full(profile.heads.shape(), workload.context_pieces, dtype=np.int64)
        case "uniform":
            # Every head the same, as in fixed top-k (StreamingLLM, Quest).
            each = _pieces_each(options, workload)
            pieces = np.full(profile.heads.shape(), each, dtype=np.int64)
        case "recovery":
            pieces = least_pieces(_needed(curves, profile, options), options.recovery)
            pieces = np.maximum(pieces, workload.least_pieces)
        case "max_min" | "max_min_shifting" | "least_error":
            known = _needed(curves, profile, options)
            if options.loss is None:
                pieces, notes, gap = _shared_out(known, profile, options, workload, deadline)
            else:
                pieces, notes, gap = _within_loss(
                    profile, options.loss, options, workload, deadline
                )
            warnings += notes
        case "elastic":
            known = _needed(curves, profile, options)
            assert basis is not None
            rules, warnings = _elastic(basis.cautious, known, options, workload, deadline)
            pieces = budget_pieces(rules.alpha + rules.beta * workload.context_tokens, workload)
        case None:
            raise AssertionError("settled options have a policy")
        case _:
            assert_never(options.policy)
    pieces = np.minimum(pieces, pieces_in_reach(profile.architecture, workload))
    return Budgets(
        tokens=np.minimum(pieces * workload.piece_tokens, workload.context_tokens),
        recovery=None if expected is None else expected.at(pieces),
        warnings=tuple(warnings),
        rules=rules,
        curve=None if basis is None else basis.curve,
        expected=expected,
        cautious=curves,
        gap=gap,
    )


def _shared_out(
    curves: RecoveryCurves,
    profile: ModelProfile,
    options: BudgetOptions,
    workload: Workload,
    deadline: Deadline,
) -> tuple[Ints, list[str], float | None]:
    """Pieces `[layers, heads]` of a fixed total, shared out per layer or over the model.

    With notes, and the gap of `least_error`.
    """
    each = _pieces_each(options, workload)
    usual_floor = int(budget_pieces(np.array(options.floor_tokens), workload))
    floor = min(usual_floor, each)
    pools = curves.pooled() if options.scope == "model" else curves
    warnings, gap = [], None
    if floor < usual_floor:
        warnings.append(
            f"budget.tokens: {options.tokens} tokens a head are below the floor of "
            f"{options.floor_tokens}: there is nothing to shift, and every head gets the same"
        )

    def cost(pieces: Ints) -> Ints:
        return _drawn(pieces, options, workload)

    match options.policy:
        case "max_min_shifting":
            pieces = shift(pools, each, floor)
        case "least_error":
            lost = error_table(profile, options.error, workload)
            lost = lost.reshape(*pools.recovery.shape[:-1], -1)
            total = lost.shape[1] * int(cost(np.array([each]))[0])
            found = least_loss(lost, total, floor, cost, LOSS_TOLERANCE, deadline)
            pieces, gap = found.pieces, found.gap
            if gap > LOSS_TOLERANCE:
                warnings.append(
                    "budget.policy: the summed error of the budgets chosen is proved only to be "
                    f"within {gap:.1%} of the least"
                )
        case _:
            pieces = max_min(pools, each, floor, cost)
    return pieces.reshape(curves.recovery.shape[:-1]), warnings, gap


def _within_loss(
    profile: ModelProfile,
    bound: float,
    options: BudgetOptions,
    workload: Workload,
    deadline: Deadline,
) -> tuple[Ints, list[str], float]:
    """Pieces `[layers, heads]` of the least total that is predicted to lose at most `bound`.

    With notes, and the gap of the total.
    """
    table = error_table(profile, options.error, workload)
    ratio = loss_ratio(profile)
    lost = table.reshape(1, -1, table.shape[-1]) if options.scope == "model" else table

    def cost(pieces: Ints) -> Ints:
        return _drawn(pieces, options, workload)

    floor = int(budget_pieces(np.array(options.floor_tokens), workload))
    found = cheapest(lost, bound / ratio.high, floor, cost, LOSS_TOLERANCE, deadline)
    warnings = []
    if workload.context_tokens != ratio.context_tokens:
        warnings.append(
            f"budget.loss: profile {profile.name!r} was calibrated at {ratio.context_tokens} "
            f"tokens, the context is {workload.context_tokens}"
        )
    if found.gap > CHEAPEST_TOLERANCE:
        warnings.append(
            f"budget.loss: the total of the budgets chosen is proved only to be within "
            f"{found.gap:.1%} of the least that keeps the loss"
        )
    return found.pieces.reshape(table.shape[:-1]), warnings, found.gap


def _drawn(pieces: Ints, options: BudgetOptions, workload: Workload) -> Ints:
    """What budgets draw from a total: causal tiles, or where those are not asked for, pieces."""
    if options.total == "tokens" or workload.phase == "decode":
        return pieces
    return causal_pieces(pieces, workload.context_blocks, workload.block_pieces)


def _elastic(
    measured: MeasuredCurves,
    here: RecoveryCurves,
    options: BudgetOptions,
    workload: Workload,
    deadline: Deadline,
) -> tuple[ElasticRules, list[str]]:
    """Rules that keep the density at the context, with its curves `here`, and at others."""

    def attended(pieces: int, at: Workload) -> float:
        drawn = _drawn(np.array([pieces, at.context_pieces]), options, at)
        return float(drawn[0] / drawn[1])

    def cost(pieces: Ints, context_tokens: int) -> Ints:
        return _drawn(pieces, options, replace(workload, context_tokens=context_tokens))

    density = options.density or attended(_pieces_each(options, workload), workload)
    planned = options.contexts
    if planned is None:
        shorter = [max(workload.context_tokens // part, 1) for part in (2, 4)]
        # A context too short to keep the density even with the shortest lists is not planned for.
        at_each = [replace(workload, context_tokens=n) for n in shorter]
        fits = [attended(at.least_pieces, at) <= density for at in at_each]
        planned = [n for n, fit in zip(shorter, fits, strict=True) if fit]
    contexts = sorted({workload.context_tokens, *planned}, reverse=True)
    curves = [
        here if n == workload.context_tokens else measured.at(replace(workload, context_tokens=n))
        for n in contexts
    ]
    rules = elastic(
        [c.pooled() if options.scope == "model" else c for c in curves],
        Menu.of(contexts, workload),
        cost,
        density,
        ELASTIC_TOLERANCE,
        deadline,
    )
    shape = curves[0].recovery.shape[:-1]
    rules = replace(rules, alpha=rules.alpha.reshape(shape), beta=rules.beta.reshape(shape))
    notes = [c.warning for c in curves if c.warning]
    if rules.gap > ELASTIC_TOLERANCE:
        notes.append(
            f"budget.policy: the rules chosen lose {rules.loss:.4g} of recovery, summed over "
            f"heads, and are proved only to be within {rules.gap:.1%} of the least"
        )
    return rules, notes


def _pieces_each(options: BudgetOptions, workload: Workload) -> int:
    """Whole pieces of the mean tokens a head, at most the context."""
    if options.tokens is None:
        instead = " or a density" if options.policy == "elastic" else ""
        raise BudgetError(
            f"budget.tokens: policy {options.policy!r} needs the mean tokens per head{instead}"
        )
    return int(budget_pieces(np.array(options.tokens), workload))


def _refuse_curves(profile: ModelProfile, options: BudgetOptions) -> None:
    asked = "curve" if options.curve is not None else "margin"
    if options.curve is not None or options.margin:
        raise BudgetError(
            f"budget.{asked}: is for recovery curves, but profile {profile.name!r} has the form "
            f"{profile.heads.form!r}"
        )


def _needed(
    curves: RecoveryCurves | None, profile: ModelProfile, options: BudgetOptions
) -> RecoveryCurves:
    if curves is None:
        raise BudgetError(
            f"budget.policy: {options.policy!r} needs recovery curves, but profile "
            f"{profile.name!r} has the form {profile.heads.form!r}; use policy 'profile' (what "
            "the profile states) or 'uniform', or a profile with recovery_curves"
        )
    return curves
