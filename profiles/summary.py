"""A profile's figures boiled down to one number per head, for people to look at."""

import numpy as np
from numpy.typing import NDArray

from profiles.heads import BudgetsForm, CurvesForm, Heads, RulesForm, SamplesForm

RULES_CONTEXT_TOKENS = 131_072
RECOVERY = 0.9


def head_tokens(heads: Heads) -> tuple[NDArray[np.float64], str]:
    """Tokens `[layers, heads]` that stand for the profile's figures, and what they are.

    Curves are interpolated at RECOVERY (a glance, not a budget policy: that is the solver's).
    """
    match heads:
        case BudgetsForm():
            return np.array(heads.tokens), "stated budgets"
        case RulesForm():
            spans = np.array(heads.alpha_tokens) + np.array(heads.beta) * RULES_CONTEXT_TOKENS
            tokens = np.clip(spans, 0, RULES_CONTEXT_TOKENS)
            return tokens, f"alpha + beta * context at {RULES_CONTEXT_TOKENS} tokens"
        case SamplesForm():
            mean = np.mean(heads.kept_tokens, axis=0)
            return mean, f"mean tokens kept over {len(heads.task)} requests"
        case CurvesForm():
            budgets, curves = heads.budget_tokens[-1], np.array(heads.recovery)[:, :, -1]
            rising = np.maximum.accumulate(curves, axis=-1)
            tokens = np.apply_along_axis(
                lambda curve: np.interp(RECOVERY, curve, budgets), -1, rising
            )
            return tokens, f"budget for recovery {RECOVERY} at {heads.context_tokens[-1]} tokens"
