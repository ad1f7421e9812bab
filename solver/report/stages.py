"""From a stock engine to a plan, stage by stage: seconds, and what each stage gains.

Every gain is over the stage before, so that they multiply to the whole one.
"""

from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Stages:
    """Seconds of a step, or of a traffic; replicas side by side share theirs out.

    `stock_s`: what a stock engine takes, `attention_s` of it for attention. `padded_s`: dense heads
    in the file's order in the least slots of all devices. `sparse_s`: the same with budgets.
    `placed_s`: ordered and divided in the least slots; `slotted_s`: in the plan's slots.
    `dense_placed_s`: dense heads in the slots and order of a plan made for them.
    """

    stock_s: float
    attention_s: float
    padded_s: float
    dense_placed_s: float
    sparse_s: float
    placed_s: float
    slotted_s: float

    @classmethod
    def total(cls, steps: Iterable[tuple[float, "Stages"]]) -> Self:
        """Of steps and how often each is run."""
        each = [[times * seconds for seconds in astuple(stages)] for times, stages in steps]
        return cls(*(sum(column) for column in zip(*each, strict=True)))

    @property
    def attention_share(self) -> float:
        return self.attention_s / self.stock_s

    @property
    def by_padding(self) -> float:
        """Below 0 where padding and copies cost something."""
        return self.stock_s / self.padded_s - 1

    @property
    def by_budgets(self) -> float:
        return self.padded_s / self.sparse_s - 1

    @property
    def by_placement(self) -> float:
        return self.sparse_s / self.placed_s - 1

    @property
    def by_slots(self) -> float:
        return self.placed_s / self.slotted_s - 1

    @property
    def gain(self) -> float:
        return self.stock_s / self.slotted_s - 1

    @property
    def without_budgets(self) -> float:
        """Of dense heads placed, over the stock engine: what costs no quality."""
        return self.stock_s / self.dense_placed_s - 1

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "attention_share": self.attention_share,
            "gain": self.gain,
            "gain_of_padding": self.by_padding,
            "gain_of_budgets": self.by_budgets,
            "gain_of_placement": self.by_placement,
            "gain_of_slots": self.by_slots,
            "gain_without_budgets": self.without_budgets,
        }
