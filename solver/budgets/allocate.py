"""From a profile and a policy to budgets: tokens per head, in whole blocks."""

from dataclasses import dataclass
from typing import assert_never

import numpy as np

from profiles.cost.work import Workload, budget_blocks, causal_tiles
from profiles.heads import CurvesForm
from profiles.model import ModelProfile
from solver.budgets.curves import Floats, Ints, RecoveryCurves
from solver.budgets.errors import BudgetError
from solver.budgets.max_min import max_min
from solver.budgets.profile import profile_tokens
from solver.budgets.recovery import least_blocks
from solver.budgets.shifting import shift
from solver.budgets.uniform import uniform
from solver.request import BudgetOptions

FLOOR_TOKENS = 128
"""What max-min leaves every head ("a small value such as 128", S-HPLB, section 3.2)."""


@dataclass(frozen=True, eq=False)
class Budgets:
    """tokens [layers, heads]: whole blocks, but never more than the context.

    recovery [layers, heads]: share of attention mass recovered, where the profile has curves.
    """

    tokens: Ints
    recovery: Floats | None
    warnings: tuple[str, ...]


def allocate(profile: ModelProfile, options: BudgetOptions, workload: Workload) -> Budgets:
    """Give every query head its budget by `options.policy`.

    Raises BudgetError where the policy needs recovery curves or mean tokens and has none, or
    cannot cope with the context's size.
    """
    heads = profile.heads
    figures = RecoveryCurves.of(heads, workload) if isinstance(heads, CurvesForm) else heads
    curves = figures if isinstance(figures, RecoveryCurves) else None
    warnings = [curves.warning] if curves and curves.warning else []
    match options.policy:
        case "profile":
            tokens, notes = profile_tokens(figures, workload, options.recovery)
            # Rounded: a mean that is whole but for floating-point noise buys no further block.
            blocks = budget_blocks(np.round(tokens, 6), workload)
            warnings += notes
        case "uniform":
            blocks = uniform(_blocks_each(options, workload), *heads.shape())
        case "recovery":
            blocks = least_blocks(_needed(curves, profile, options), options.recovery)
        case "max_min" | "max_min_shifting":
            known = _needed(curves, profile, options)
            blocks, notes = _shared_out(known, options, workload)
            warnings += notes
        case _:
            assert_never(options.policy)
    return Budgets(
        tokens=np.minimum(blocks * workload.block_tokens, workload.context_tokens),
        recovery=None if curves is None else curves.at(blocks),
        warnings=tuple(warnings),
    )


def _shared_out(
    curves: RecoveryCurves, options: BudgetOptions, workload: Workload
) -> tuple[Ints, list[str]]:
    """Blocks `[layers, heads]` of a fixed total, shared out per layer or over the model."""
    each = _blocks_each(options, workload)
    usual_floor = min(-(-FLOOR_TOKENS // workload.block_tokens), workload.context_blocks)
    floor = min(usual_floor, each)
    pools = curves.pooled() if options.scope == "model" else curves
    if options.policy == "max_min_shifting":
        blocks = shift(pools, each, floor)
    else:
        in_tiles = options.total == "tiles" and workload.phase == "prefill"

        def cost(blocks: Ints) -> Ints:
            return causal_tiles(blocks, workload.context_blocks) if in_tiles else blocks

        blocks = max_min(pools, each, floor, cost)
    warnings = []
    if floor < usual_floor:
        warnings.append(
            f"budget.tokens: {options.tokens} tokens a head are below the floor of "
            f"{FLOOR_TOKENS}: there is nothing to shift, and every head gets the same"
        )
    return blocks.reshape(curves.recovery.shape[:-1]), warnings


def _blocks_each(options: BudgetOptions, workload: Workload) -> int:
    """Whole blocks of the mean tokens a head, at most the context."""
    if options.tokens is None:
        raise BudgetError(
            f"budget.tokens: policy {options.policy!r} needs the mean tokens per head"
        )
    return int(budget_blocks(np.array(options.tokens), workload))


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
