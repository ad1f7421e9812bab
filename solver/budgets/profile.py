"""The `profile` policy: what the profile itself says each head needs, whatever its form."""

from typing import assert_never

import numpy as np

from profiles.cost.work import Workload
from profiles.heads import BudgetsForm, RulesForm, SamplesForm
from solver.budgets.curves import Floats, RecoveryCurves
from solver.budgets.recovery import least_pieces

Figures = BudgetsForm | RulesForm | SamplesForm | RecoveryCurves


def profile_tokens(
    figures: Figures, workload: Workload, recovery: float
) -> tuple[Floats, list[str]]:
    """Tokens `[layers, heads]` from 0 to the context, and warnings.

    Stated budgets hold as they are, rules (MoA, arXiv 2406.14909) at the context, of samples the
    mean over requests of what they would keep of it, of curves the least tokens that reach
    `recovery`.
    """
    context = workload.context_tokens
    match figures:
        case BudgetsForm():
            return _stated(np.array(figures.tokens), context)
        case RulesForm():
            return _ruled(np.array(figures.alpha_tokens), np.array(figures.beta), context)
        case SamplesForm():
            return _sampled(figures, context)
        case RecoveryCurves():
            pieces = least_pieces(figures, recovery).astype(np.float64)
            return np.minimum(pieces * workload.piece_tokens, context), []
        case _:
            assert_never(figures)


def _stated(tokens: Floats, context: int) -> tuple[Floats, list[str]]:
    above = int((tokens > context).sum())
    warnings = [_unstated("budgets", "kept as they are", context)]
    if above:
        warnings.append(
            f"stated budgets of {above} of {tokens.size} heads are above the context and were "
            f"clipped to its {context} tokens"
        )
    return np.minimum(tokens, context), warnings


def _ruled(alpha: Floats, beta: Floats, context: int) -> tuple[Floats, list[str]]:
    tokens = alpha + beta * context
    below = int((tokens < 1).sum())
    warnings = [_unstated("rules", "extended", context)]
    if below:
        warnings.append(
            f"rules of {below} of {tokens.size} heads give less than 1 token at a context of "
            f"{context} tokens and were raised to 1"
        )
    return np.clip(tokens, 1, context), warnings


def _unstated(form: str, treatment: str, context: int) -> str:
    return (
        f"the profile does not say for which contexts its {form} hold; they were {treatment} "
        f"at {context} tokens"
    )


def _sampled(samples: SamplesForm, context: int) -> tuple[Floats, list[str]]:
    least, most = min(samples.context_tokens), max(samples.context_tokens)
    warnings = []
    if not least <= context <= most:
        warnings.append(
            f"context of {context} tokens: the profile's requests had {least} to {most} tokens; "
            "budgets are the mean share they kept, extrapolated"
        )
    return np.mean(samples.kept_at(context), axis=0), warnings
