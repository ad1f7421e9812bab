"""From prompts to a profile's figures: means, spreads, rank stability."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from profiles.heads import CurvesForm
from profiles.heterogeneity import needed_shares, rank_correlations
from profiles.measurement import Stability
from profiles.measuring.choices import Choices
from profiles.measuring.data import Item

Floats = NDArray[np.float64]
Arrays = dict[str, Floats]
Parts = Sequence[tuple[Item, Arrays]]


def curves_form(parts: Parts, choices: Choices) -> CurvesForm:
    """Means over prompts, each counting the same, and spreads where all contexts have several."""
    selected = all("selected_recovery" in arrays for _, arrays in parts)
    several = all(len(_of(parts, context)) > 1 for context in choices.contexts)
    erring = all("output_error" in arrays for _, arrays in parts)
    return CurvesForm(
        context_tokens=list(choices.contexts),
        budget_tokens=_budget_tokens(choices),
        recovery=_over(parts, choices, "recovery", _mean),
        selected_recovery=_over(parts, choices, "selected_recovery", _mean) if selected else None,
        spread=_over(parts, choices, "recovery", _deviation) if several else None,
        selected_spread=(
            _over(parts, choices, "selected_recovery", _deviation) if selected and several else None
        ),
        output_error=_over(parts, choices, "output_error", _mean) if erring else None,
        gradient_error=_where_measured(parts, "gradient_error"),
    )


def stability(parts: Parts, choices: Choices) -> list[Stability]:
    """Rank correlations between every two contexts, and every two tasks at a context of both."""
    needed: dict[tuple[int, str], list[Floats]] = defaultdict(list)
    for item, arrays in parts:
        needed[item.context_tokens, item.task].append(arrays["recovery"])
    contexts = {
        str(context): _needed(
            [r for (c, _), rs in needed.items() if c == context for r in rs], context, choices
        )
        for context in choices.contexts
    }
    found = rank_correlations("context", contexts)
    tasks = sorted({task for _, task in needed})
    shares = {key: _needed(recovery, key[0], choices) for key, recovery in needed.items()}
    for place, first in enumerate(tasks):
        for second in tasks[place + 1 :]:
            common = [c for c in choices.contexts if (c, first) in shares and (c, second) in shares]
            if common:
                pair = {t: np.mean([shares[c, t] for c in common], 0) for t in (first, second)}
                found += rank_correlations("task", pair)
    return found


def _needed(recovery: list[Floats], context: int, choices: Choices) -> Floats:
    """Shares [layers, heads] that the mean of recovery [layers, heads, points] needs."""
    budgets = _budget_tokens(choices)[choices.contexts.index(context)]
    return needed_shares(_mean(np.stack(recovery)), np.array(budgets, dtype=float), context)


def _budget_tokens(choices: Choices) -> list[list[int]]:
    return [
        [min(pieces * choices.piece, context) for pieces in budgets]
        for budgets, context in zip(choices.budgets(), choices.contexts, strict=True)
    ]


def _of(parts: Parts, context: int) -> list[Arrays]:
    return [arrays for item, arrays in parts if item.context_tokens == context]


def _over(
    parts: Parts, choices: Choices, field: str, figure: Callable[[Floats], Floats]
) -> list[list[list[list[float]]]]:
    """`figure` over the prompts of each context, [layers][heads][contexts][points]."""
    by_context = [
        figure(np.stack([arrays[field] for arrays in _of(parts, context)]))
        for context in choices.contexts
    ]
    figures = np.stack(by_context, 2)
    if field != "output_error":
        figures = figures.clip(0, 1)
    found: list[list[list[list[float]]]] = figures.tolist()
    return found


def _where_measured(parts: Parts, field: str) -> Any:
    """The mean over the prompts that have `field`, as lists; None where none has."""
    found = [arrays[field] for _, arrays in parts if field in arrays]
    return _mean(np.stack(found)).tolist() if found else None


def _mean(values: Floats) -> Floats:
    return np.asarray(values.mean(0))


def _deviation(values: Floats) -> Floats:
    return np.asarray(values.std(0, ddof=1))
