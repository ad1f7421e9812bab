"""The multiple-choice knapsack with one capacity, exactly, by lists of undominated states.

Dynamic programming over the heads (Nemhauser and Ullmann, Management Science 15, 1969): of what the
heads so far can draw and lose, a state that draws and loses no less than another leads nowhere.
Neither does one that the prices of the linear relaxation show to end above the best choice known
(Pisinger, European Journal of Operational Research 83, 1995). Where that leaves too many, the lists
are thinned evenly over what is drawn: the best choice is then found no more for certain, and what
was left out bounds what any other can reach.
"""

import numpy as np

from solver.budgets.curves import Floats, Ints
from solver.budgets.multiple_choice import ROUNDING, Chosen, MultipleChoice
from solver.deadline import Deadline

STATES = (2**14, 2**17)
"""What a head may make of the states before it; a better choice from short lists prunes long ones.
"""
PROVED = 1e-8
"""Gap that rounding leaves of an exact proof."""


def undominated(
    program: MultipleChoice, start: Chosen, tolerance: float, deadline: Deadline
) -> Chosen:
    """The best choice within `tolerance`, as far as the lists' length and the deadline allow.

    `start` has a bound at its prices; the answer is worse in neither.
    """
    for most in STATES:
        improved = True
        while improved:
            if start.loss - start.bound <= max(tolerance, PROVED) * start.loss:
                return start
            found = _once(program, start, most, deadline)
            improved, start = found.loss < start.loss, found
    return start


def _once(program: MultipleChoice, start: Chosen, most: int, deadline: Deadline) -> Chosen:
    price, limit = start.prices[0], int(program.capacity[0])
    priced = program.priced(start.prices)
    least = priced.min(axis=1)
    # What a choice may lose above the relaxation, and what those left out lose there at least.
    relaxed = float(least.sum()) - price
    slack = ROUNDING * (start.loss + price + float(least.sum()))
    spare = left_out = start.loss - relaxed + slack
    cost, loss, above = np.zeros(1, dtype=np.int64), np.zeros(1), np.zeros(1)
    steps: list[tuple[Ints, Ints]] = []
    for head, losses in enumerate(program.loss):
        if not deadline.left_s:
            return start
        rules = np.flatnonzero(priced[head] - least[head] <= spare)
        states = _thinned(cost, above, max(most // len(rules), 1))
        if len(states) < len(cost):
            left_out = min(left_out, float(np.delete(above, states).min()))
        later = (len(program.loss) - head - 1) * int(program.cost[0, 0])
        drawn = (cost[states, None] + program.cost[rules, 0]).ravel()
        lost = (loss[states, None] + losses[rules]).ravel()
        over = lost + price * drawn / limit - least[: head + 1].sum()
        kept = np.flatnonzero((over <= spare) & (drawn <= limit - later))
        kept = kept[_front(drawn[kept], lost[kept])]
        cost, loss, above = drawn[kept], lost[kept], over[kept]
        steps.append((states[kept // len(rules)], rules[kept % len(rules)]))
    choice, state = start.choice, len(cost) - 1
    if len(cost) and loss[state] < start.loss:
        choice = start.choice.copy()
        for head, (before, rule) in reversed(list(enumerate(steps))):
            choice[head], state = rule[state], before[state]
    found = program.total(choice)
    proved = min(found, relaxed + left_out) - 2 * slack
    return Chosen(choice, found, min(max(start.bound, proved), found), start.prices)


def _thinned(cost: Ints, above: Floats, most: int) -> Ints:
    """At most so many states, evenly over what they draw: of each part the most promising."""
    if len(cost) <= most:
        return np.arange(len(cost))
    part = (cost - cost[0]) * most // (cost[-1] - cost[0] + 1)
    order = np.lexsort((above, part))
    _, first = np.unique(part[order], return_index=True)
    return np.sort(order[first])


def _front(cost: Ints, loss: Floats) -> Ints:
    """Which states no other one dominates, by rising cost and falling loss."""
    order = np.lexsort((loss, cost))
    best_before = np.minimum.accumulate(np.concatenate(([np.inf], loss[order])))[:-1]
    return order[loss[order] < best_before]
