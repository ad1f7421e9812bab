"""What the ranks measured, row by row, beside what the plans predicted; and whether it will do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.cpu_attention import spread
from benchmarks.engines.plans import BASE, DIVIDED, DIVIDED_DENSE, Row
from benchmarks.engines.rank import Prefill
from executor.inference.barrier import Barrier

AIMED_TOKENS = 4096
"""The shortest context that there are aims for."""
OVER_MEAN, GAIN, ERROR_PERCENT = 1.05, 1.25, 10.0
Found = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """All ranks' prefills of a row in a round."""

    attention: Barrier
    wall_s: float
    nats: float

    @classmethod
    def of(cls, ranks: Sequence[Prefill]) -> "Run":
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
    predicted: Mapping[str, Barrier],
    measured: Mapping[str, Sequence[Run]],
) -> list[Found]:
    """A context's rows: medians over rounds with the least and the most, ratios round by round.

    The whole prefill is predicted as the plan's attention and the rest that the other rows had.
    """
    dense = measured[BASE]
    found = []
    for row in rows:
        runs, plan = measured[row.name], predicted[row.name]
        others = [run.rest_s for name, each in measured.items() if name != row.name for run in each]
        attention, wall = (
            spread([run.attention.slowest_s for run in runs]),
            spread([run.wall_s for run in runs]),
        )
        wall_s = plan.slowest_s + median(others)
        found.append(
            {
                "context_tokens": context,
                "row": row.name,
                "budgets": row.budgets,
                "rounds": len(runs),
                "attention_s": attention,
                "ranks_s": [
                    spread(list(mine))
                    for mine in zip(*(run.attention.ranks_s for run in runs), strict=True)
                ],
                "bubble": spread([run.attention.bubble for run in runs]),
                "over_mean": spread(
                    [run.attention.slowest_s / run.attention.mean_s for run in runs]
                ),
                "gain": _ratio(
                    [
                        (b.attention.slowest_s, r.attention.slowest_s)
                        for b, r in zip(dense, runs, strict=True)
                    ]
                ),
                "wall_s": wall,
                "wall_gain": _ratio(
                    [(b.wall_s, r.wall_s) for b, r in zip(dense, runs, strict=True)]
                ),
                "over_dense_nats": spread(
                    [run.nats - base.nats for run, base in zip(runs, dense, strict=True)]
                ),
                "nats": spread([run.nats for run in runs]),
                "predicted": {
                    "attention_s": plan.slowest_s,
                    "ranks_s": list(plan.ranks_s),
                    "bubble": plan.bubble,
                    "wall_s": wall_s,
                },
                "error_percent": {
                    "attention": _error(plan.slowest_s, attention["median"]),
                    "wall": _error(wall_s, wall["median"]),
                },
            }
        )
    return found


def aims(found: Sequence[Found]) -> dict[str, Found]:
    """The aims from `AIMED_TOKENS` on: the worst figure, what it may be, and whether it is met.

    Nothing where no context is as long.
    """
    aimed = [row for row in found if row["context_tokens"] >= AIMED_TOKENS]
    if not aimed:
        return {}
    of = {name: [row for row in aimed if row["row"] == name] for name in (DIVIDED, DIVIDED_DENSE)}
    over_mean = max(row["over_mean"]["median"] for row in of[DIVIDED])
    gain = min(row["gain"]["median"] for row in of[DIVIDED_DENSE])
    errors = {
        what: max(abs(row["error_percent"][what]) for row in aimed)
        for what in ("attention", "wall")
    }
    return {
        "divided over the mean of both ranks": _aim(over_mean, OVER_MEAN, over_mean <= OVER_MEAN),
        "attention's gain by dividing dense budgets": _aim(gain, GAIN, gain >= GAIN),
        **{
            f"error of predicted {what}, %": _aim(worst, ERROR_PERCENT, worst <= ERROR_PERCENT)
            for what, worst in errors.items()
        },
    }


def _aim(worst: float, limit: float, met: bool) -> Found:
    return {"worst": worst, "limit": limit, "met": met}


def _ratio(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    return spread([over / under for over, under in pairs])


def _error(predicted: float, found: float) -> float:
    return 100 * (predicted / found - 1)
