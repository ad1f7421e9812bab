"""Rows made into the figures that are shown: averages, intervals, shares, perplexity."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from executor.evaluation.bootstrap import Floats, Interval, Resampled, resample
from executor.evaluation.journal import TEXT
from executor.evaluation.methods import AS_FILLED, DENSE, FILLED, Method
from executor.evaluation.runner import Evaluated

REFERENCE = "max_min"


@dataclass(frozen=True, slots=True)
class Line:
    """One method at one context and density. Scores are shares from 0 to 1.

    `tasks` has means by task; `average` is over tasks. `to_dense` and `to_reference` are paired
    differences of averages, this less the other: the reference is `max_min` at this density, for
    `bubble_filled` what computes as much. `computed` is the share of dense attention's blocks in
    the prompts' prefill, `makespan` that of its predicted seconds, choosing included (the oracle's
    as if by pooled scores). `least_recovery` is the profile's for the budgets.
    """

    context: int
    method: str
    density: float | None
    knob: dict[str, float]
    tasks: dict[str, float]
    average: Interval
    to_dense: Interval | None
    to_reference: Interval | None
    computed: float
    makespan: float
    perplexity: Interval
    least_recovery: float | None


def summarise(evaluated: Evaluated, tasks: Sequence[str], seed: int) -> list[Line]:
    """A line for every method, in the order they ran."""
    rows: dict[tuple[str, float | None, str], list[float]] = {}
    tiles: dict[tuple[str, float | None], list[int]] = {}
    for row in evaluated.rows:
        rows.setdefault((row.method, row.density, row.task), []).append(row.value)
        if row.task != TEXT:
            both = tiles.setdefault((row.method, row.density), [0, 0])
            both[0] += row.tiles
            both[1] += row.dense_tiles

    def of(method: Method, names: Sequence[str]) -> list[Floats]:
        return [np.array(rows[method.name, method.density, name]) for name in names]

    labels = {_label(m.name, m.density): m for m in evaluated.methods}
    scores = resample({label: of(m, tasks) for label, m in labels.items()}, seed)
    nats = resample({label: of(m, [TEXT]) for label, m in labels.items()}, seed)
    dense_s = evaluated.makespan_s[DENSE, None]
    lines = []
    for label, method in labels.items():
        key = method.name, method.density
        mine, dense = scores[label], scores[_label(DENSE, None)]
        reference = _reference(method, scores)
        computed, whole = tiles[key]
        lines.append(
            Line(
                evaluated.setting.context_tokens,
                method.name,
                method.density,
                method.knob,
                dict(zip(tasks, (float(x.mean()) for x in of(method, tasks)), strict=True)),
                mine.interval,
                None if mine is dense else mine.less(dense),
                None if reference in (None, mine) else mine.less(reference),
                computed / whole,
                evaluated.makespan_s[key] / dense_s,
                _perplexity(nats[label]),
                method.least_recovery,
            )
        )
    return lines


def _label(name: str, density: float | None) -> str:
    return f"{name} {density}"


def _reference(method: Method, scores: dict[str, Resampled]) -> Resampled | None:
    name = AS_FILLED if method.name == FILLED else REFERENCE
    return scores.get(_label(name, method.density))


def _perplexity(nats: Resampled) -> Interval:
    found = nats.interval
    ends = (None if end is None else float(np.exp(end)) for end in (found.low, found.high))
    return Interval(float(np.exp(found.value)), *ends)
