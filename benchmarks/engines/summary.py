"""What the ranks measured, row by row, beside what the plans predicted; and whether it will do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import truediv
from statistics import median
from typing import Any, Self

from benchmarks.cpu_attention import spread
from benchmarks.engines.plans import BASE, DIVIDED, DIVIDED_DENSE, Predicted, Row
from benchmarks.engines.rank import Prefill
from executor.barrier import Barrier

AIMED_TOKENS = 4096
"""The shortest context that there are aims for."""
OVER_MEAN, GAIN, ERROR = 1.05, 1.25, 10.0
PREDICTED = {
    "attention": "predicted attention",
    "rest": "predicted attention with the other rows' rest",
    "step": "the plan's whole step",
}
Found = dict[str, Any]
Lists = Mapping[tuple[int, int, int], int]
"""Checksums of lists by layer, head and query block."""


@dataclass(frozen=True)
class Run:
    """All ranks' prefills of a row in a round."""

    attention: Barrier
    wall_s: float
    nats: float

    @classmethod
    def of(cls, ranks: Sequence[Prefill]) -> Self:
        layers = list(zip(*(rank.attention_s for rank in ranks), strict=True))
        return cls(Barrier.of(layers), max(rank.wall_s for rank in ranks), ranks[0].nats)

    @property
    def rest_s(self) -> float:
        """What is not attention: projections, MLPs, all-reduces, waiting for a core."""
        return self.wall_s - self.attention.slowest_s


def rounds(ranks: Sequence[Sequence[Prefill]]) -> dict[str, list[Run]]:
    """Every row's rounds, of what each rank measured."""
    found: dict[str, list[Run]] = {}
    for prefills in zip(*ranks, strict=True):
        found.setdefault(prefills[0].row, []).append(Run.of(prefills))
    return found


def summarise(
    context: int,
    rows: Sequence[Row],
    planned: Mapping[str, Predicted],
    predicted: Mapping[str, Sequence[Predicted]],
    measured: Mapping[str, Sequence[Run]],
) -> list[Found]:
    """A context's rows: medians over rounds with the least and the most, ratios round by round.

    `planned` is what the plans were made with, `predicted` what they come to by every round's own
    rates. The whole prefill is predicted twice: as the plan has it, and as the plan's attention
    with the rest that was measured in the round's other rows.
    """
    found = []
    for row in rows:
        runs, plans = measured[row.name], predicted[row.name]
        others = [each for name, each in measured.items() if name != row.name]
        rests = [median(each[number].rest_s for each in others) for number in range(len(runs))]
        attention_s = [plan.attention.slowest_s for plan in plans]
        seconds = {
            "attention": attention_s,
            "rest": [own + rest for own, rest in zip(attention_s, rests, strict=True)],
            "step": [plan.step_s for plan in plans],
        }
        wall_s = [run.wall_s for run in runs]
        reached = {
            "attention": [run.attention.slowest_s for run in runs],
            "rest": wall_s,
            "step": wall_s,
        }
        ranks = zip(*(plan.attention.ranks_s for plan in plans), strict=True)
        found.append(
            {
                "context_tokens": context,
                "row": row.name,
                "budgets": row.budgets,
                **_measured(runs, measured[BASE]),
                "planned_s": planned[row.name].attention.slowest_s,
                "predicted_s": {name: median(each) for name, each in seconds.items()},
                "predicted_ranks_s": [median(mine) for mine in ranks],
                "error_percent": {
                    name: 100 * (median(map(truediv, each, reached[name])) - 1)
                    for name, each in seconds.items()
                },
            }
        )
    return found


def _measured(runs: Sequence[Run], dense: Sequence[Run]) -> Found:
    """A row's figures, gains and losses against `dense` of the same round."""
    pairs = list(zip(runs, dense, strict=True))
    ranks = zip(*(run.attention.ranks_s for run in runs), strict=True)
    return {
        "rounds": len(runs),
        "attention_s": spread([run.attention.slowest_s for run in runs]),
        "ranks_s": [spread(list(mine)) for mine in ranks],
        "bubble": spread([run.attention.bubble for run in runs]),
        "over_mean": spread([run.attention.slowest_s / run.attention.mean_s for run in runs]),
        "gain": spread([base.attention.slowest_s / run.attention.slowest_s for run, base in pairs]),
        "wall_s": spread([run.wall_s for run in runs]),
        "wall_gain": spread([base.wall_s / run.wall_s for run, base in pairs]),
        "nats": spread([run.nats for run in runs]),
        "over_dense_nats": spread([run.nats - base.nats for run, base in pairs]),
    }


def equal_lists(ranks: Sequence[Lists], alone: Lists) -> dict[str, float | None]:
    """How many lists the ranks chose and the share that one process chose alike, by checksums.

    None of none: by the round's rates every head may be dense where choosing costs more than it
    saves. Raises ValueError where they are not lists of the same heads and query blocks, each once.
    """
    chosen = {place: checksum for each in ranks for place, checksum in each.items()}
    if chosen.keys() != alone.keys() or len(chosen) != sum(len(each) for each in ranks):
        raise ValueError("lists: the ranks' must be those of one process, each on one rank")
    equal = sum(chosen[place] == checksum for place, checksum in alone.items())
    return {"lists": len(alone), "equal": equal / len(alone) if alone else None}


def aims(found: Sequence[Found]) -> dict[str, Found]:
    """The aims from `AIMED_TOKENS` on: the worst figure, what it may be, and whether it is met.

    Nothing where no context is as long.
    """
    aimed = [row for row in found if row["context_tokens"] >= AIMED_TOKENS]
    if not aimed:
        return {}
    divided, dense = (
        [row for row in aimed if row["row"] == name] for name in (DIVIDED, DIVIDED_DENSE)
    )
    over_mean = max(row["over_mean"]["median"] for row in divided)
    gain = min(row["gain"]["median"] for row in dense)
    errors = {
        what: max(abs(row["error_percent"][name]) for row in aimed)
        for name, what in PREDICTED.items()
    }
    return {
        "divided over the mean of both ranks": _aim(over_mean, OVER_MEAN, over_mean <= OVER_MEAN),
        "gain of dividing dense budgets": _aim(gain, GAIN, gain >= GAIN),
        **{
            f"error of {what}, %": _aim(worst, ERROR, worst <= ERROR)
            for what, worst in errors.items()
        },
    }


def _aim(worst: float, limit: float, met: bool) -> Found:
    return {"worst": worst, "limit": limit, "met": met}
