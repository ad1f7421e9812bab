"""Whether HPLB is worth it for a model, devices and traffic: what padding, budgets, placement and
slots gain or lose, one after the other, of the whole steps of a stock engine.

One plan serves the whole traffic, as one engine would: its steps are weighted workloads, with one
placement, one number of slots and one budget vector. Predicted seconds, choosing included.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from threading import Event
from typing import Any, Literal

from profiles.catalogue import catalogue_rates
from profiles.cost.work import Phase
from profiles.errors import HplbError
from solver.planning.advice import LITTLE
from solver.plans import WholeStep
from solver.report.engine_plans import EnginePlans, Setting, Vector
from solver.report.stages import Stages
from solver.report.stock_base import StockBase, stock_base
from solver.report.traffic_steps import Steps

WORTH = 0.05
"""A gain of the traffic's seconds from which the answer is yes."""
FIRST_TOKENS, LAST_TOKENS = 1024, 2**20
"""Contexts, in powers of two, among which the break-even is looked for."""
MOST_PLANS = 3
"""Searched for for the traffic itself: dense, with budgets, and those in the least slots."""


class WorthError(HplbError):
    """What is asked for cannot be answered for this model."""


@dataclass(frozen=True)
class Row:
    """What the plan gives steps alike; `loss` of the budgets there, nats a token, where known."""

    of: Steps
    stages: Stages
    loss: float | None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self.of), **self.stages.to_json(), "loss": self.loss}


@dataclass(frozen=True, eq=False)
class Worth:
    """The answer for a traffic, and what it rests on.

    `slots` of the plan, `least_slots` that hold every KV group, and the share of the K/V tokens
    that fit which those beyond leave. `dense`: no head leaves anything out of any step.
    `break_even_tokens`: the shortest prompt, of powers of two up to `tried_to_tokens`, from which a
    plan made for it alone gains at least LITTLE of its step; None where none does.
    """

    setting: Setting
    base: StockBase
    rows: tuple[Row, ...]
    slots: int
    least_slots: int
    kv_share: float
    dense: bool
    break_even_tokens: int | None
    tried_to_tokens: int

    @property
    def total(self) -> Stages:
        """Of the whole traffic."""
        return Stages.total((row.of.times, row.stages) for row in self.rows)

    @property
    def unmeasured(self) -> list[Phase]:
        """The phases of which seconds come from the device type's data sheet."""
        kind, phases = self.setting.device_type, dict.fromkeys(row.of.phase for row in self.rows)
        return [phase for phase in phases if not catalogue_rates([kind], phase)[kind].measured]

    @property
    def answer(self) -> Literal["yes", "little", "no"]:
        gain = self.total.gain
        if gain >= WORTH:
            return "yes"
        return "little" if gain >= LITTLE else "no"

    @property
    def loss(self) -> float | None:
        """The most that the budgets are predicted to cost any of the steps, nats a token."""
        return max((row.loss for row in self.rows if row.loss is not None), default=None)

    def to_json(self) -> dict[str, Any]:
        return {
            "profile": self.setting.profile.name,
            "gpus": self.setting.gpus,
            "device_type": self.setting.device_type,
            "base": asdict(self.base),
            "answer": self.answer,
            "unmeasured": self.unmeasured,
            **self.total.to_json(),
            "slots": self.slots,
            "least_slots": self.least_slots,
            "kv_share": self.kv_share,
            "dense": self.dense,
            "loss": self.loss,
            "break_even_tokens": self.break_even_tokens,
            "tried_to_tokens": self.tried_to_tokens,
            "rows": [row.to_json() for row in self.rows],
        }


def worth(
    setting: Setting,
    traffic: Sequence[Steps],
    on_plan: Callable[[str, int], None] = lambda *_: None,
    cancelled: Event | None = None,
) -> Worth:
    """Ask for the whole traffic, and from which prompt length it would pay.

    `on_plan` gets each plan that is searched for in words, and how many there are at most.
    Raises WorthError where nothing is known of the model's MLP, and what `make_plan` raises.
    """
    architecture = setting.profile.architecture
    if architecture.mlp_size is None:
        raise WorthError(
            f"profile {setting.profile.name!r} has no architecture.mlp_size, without which nobody "
            "knows what share of a step attention is; give its model's folder, too (--model)"
        )
    stop, most = cancelled or Event(), MOST_PLANS + len(list(_powers()))
    base, plans = stock_base(architecture, setting.gpus), EnginePlans(setting, traffic, stop)
    stock, vector = plans.stock(base), plans.vector()
    on_plan("dense heads", most)
    dense = sparse = least = plans.dense()
    if not vector.dense:
        on_plan("budgets", most)
        sparse = plans.sparse(vector)
    on_plan("the least slots", most)
    least = plans.in_least_slots(vector, sparse)
    rows = [
        Row(of, _stages(base, *steps), _loss(setting, vector, of))
        for of, *steps in zip(
            traffic, stock.steps, dense.steps, sparse.steps, least.steps, strict=True
        )
    ]
    even, tried = _break_even(setting, base, lambda words: on_plan(words, most), stop)
    slots, padding = sparse.plan.slots, sparse.plan.padding
    # They were asked for.
    assert slots is not None
    assert padding is not None
    return Worth(
        setting=setting,
        base=base,
        rows=tuple(rows),
        slots=slots,
        least_slots=padding.least_slots,
        kv_share=padding.kv_share,
        dense=vector.dense,
        break_even_tokens=even,
        tried_to_tokens=tried,
    )


def _stages(
    base: StockBase, stock: WholeStep, dense: WholeStep, sparse: WholeStep, least: WholeStep
) -> Stages:
    """Of a step that the four plans serve: heads in order take as long in either sparse plan."""
    return Stages(
        stock_s=stock.contiguous_step_s / base.replicas,
        attention_s=stock.contiguous_attention_s / base.replicas,
        padded_s=dense.contiguous_step_s,
        dense_placed_s=dense.step_s,
        sparse_s=sparse.contiguous_step_s,
        placed_s=least.step_s,
        slotted_s=sparse.step_s,
    )


def _loss(setting: Setting, vector: Vector, steps: Steps) -> float | None:
    """What the vector costs such steps, nats a token; nothing, where it leaves nothing out."""
    from solver.planning.each_workload import predicted_nats  # slow to import: SciPy's solvers

    if vector.dense:
        return 0.0
    if vector.made.loss is None:
        return None
    return predicted_nats(setting.profile, vector.made, steps.context_tokens)


def _break_even(
    setting: Setting, base: StockBase, on_plan: Callable[[str], None], stop: Event
) -> tuple[int | None, int]:
    """The first prompt of those tried for which a plan by itself pays, and the last one tried."""
    tried = 0
    for tokens in _powers():
        if stop.is_set():
            break
        on_plan(f"prompts of {tokens:,} tokens")
        tried = tokens
        plans = EnginePlans(setting, [Steps("prefill", tokens, 1, 1)], stop)
        (stock,), (found,) = plans.stock(base).steps, plans.sparse(plans.vector()).steps
        if stock.contiguous_step_s / base.replicas / found.step_s - 1 >= LITTLE:
            return tokens, tried
    return None, tried


def _powers() -> Iterator[int]:
    tokens = FIRST_TOKENS
    while tokens <= LAST_TOKENS:
        yield tokens
        tokens *= 2
