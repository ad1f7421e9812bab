"""Whether HPLB is worth it for a model, devices and traffic: what budgets and placement gain.

Of the whole step, as the stock engine has it: tensor parallelism, KV groups in slots, heads in the
file's order, every head dense. Against that stand sparse budgets in the same order, and those
placed, whole or divided, in as many slots as pay. Predicted seconds, choosing included.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from threading import Event
from typing import Any, Literal

from profiles.catalogue import catalogue_rates
from profiles.cost.work import Phase
from profiles.errors import HplbError
from profiles.heads import CurvesForm
from profiles.model import ModelProfile
from profiles.traffic import Traffic
from solver.planning.advice import LITTLE
from solver.plans import Plan, PromisedLoss, WholeStep
from solver.request import PlanRequest

WORTH = 0.05
"""A gain of the traffic's seconds from which the answer is yes."""
FIRST_TOKENS, LAST_TOKENS = 1024, 2**20
"""Contexts, in powers of two, among which the break-even is looked for."""
PLANS_A_STEP = 2
"""Dense heads and sparse ones."""


class WorthError(HplbError):
    """What is asked for cannot be answered for this model."""


@dataclass(frozen=True)
class Setting:
    """What the traffic meets: a model's profile on `gpus` devices of a type.

    `budget` and `slots` as a request has them; `decode_batch` sequences decode together; `plan_s`
    seconds for each of the plans that are made.
    """

    profile: ModelProfile
    gpus: int
    device_type: str
    budget: Mapping[str, object]
    slots: int | str = "auto"
    decode_batch: int = 16
    plan_s: float = 2.0


@dataclass(frozen=True)
class Step:
    """One step, by turns: seconds of the stock engine's, with sparse budgets, and those placed.

    `attention_share` of the stock step; `placed_dense_s`: dense heads placed. `loss` of the
    budgets, nats a token, where the profile is calibrated; `slots` of the placed plan, and the
    share of the K/V tokens that fit which they leave.
    """

    phase: Phase
    context_tokens: int
    attention_share: float
    stock_s: float
    placed_dense_s: float
    sparse_s: float
    placed_s: float
    loss: PromisedLoss | None
    slots: int
    kv_share: float

    @property
    def by_budgets(self) -> float:
        return self.stock_s / self.sparse_s - 1

    @property
    def by_placement(self) -> float:
        return self.sparse_s / self.placed_s - 1

    @property
    def gain(self) -> float:
        return self.stock_s / self.placed_s - 1

    def to_json(self) -> dict[str, Any]:
        each = {name: value for name, value in asdict(self).items() if name != "loss"}
        return {
            **each,
            "loss": None if self.loss is None else self.loss.model_dump(),
            "gain_of_budgets": self.by_budgets,
            "gain_of_placement": self.by_placement,
            "gain": self.gain,
        }


@dataclass(frozen=True)
class Row:
    """A class of requests alike, and the `times` that its step is run for them."""

    requests: int
    times: float
    step: Step

    def to_json(self) -> dict[str, Any]:
        return {"requests": self.requests, "times": self.times, **self.step.to_json()}


@dataclass(frozen=True, eq=False)
class Worth:
    """The answer for a traffic, and what it rests on.

    `break_even_tokens`: the shortest prompt, of powers of two up to `tried_to_tokens`, from which
    budgets and placement together gain at least LITTLE of the step; None where none does.
    """

    setting: Setting
    rows: tuple[Row, ...]
    break_even_tokens: int | None
    tried_to_tokens: int

    def seconds(self, name: str) -> float:
        """Of the whole traffic: `stock_s`, `placed_dense_s`, `sparse_s` or `placed_s`."""
        return float(sum(row.times * getattr(row.step, name) for row in self.rows))

    @property
    def attention_share(self) -> float:
        attention_s = sum(
            row.times * row.step.stock_s * row.step.attention_share for row in self.rows
        )
        return attention_s / self.seconds("stock_s")

    @property
    def gain(self) -> float:
        """Of the traffic's seconds."""
        return self.seconds("stock_s") / self.seconds("placed_s") - 1

    @property
    def answer(self) -> Literal["yes", "little", "no"]:
        if self.gain >= WORTH:
            return "yes"
        return "little" if self.gain >= LITTLE else "no"

    @property
    def loss(self) -> float | None:
        """The most that a class's budgets are predicted to cost, nats a token."""
        losses = [row.step.loss.nats for row in self.rows if row.step.loss is not None]
        return max(losses) if losses else None

    def to_json(self) -> dict[str, Any]:
        setting, total_s = self.setting, self.seconds("stock_s")
        return {
            "profile": setting.profile.name,
            "gpus": setting.gpus,
            "device_type": setting.device_type,
            "decode_batch": setting.decode_batch,
            "answer": self.answer,
            "gain": self.gain,
            "gain_of_budgets": total_s / self.seconds("sparse_s") - 1,
            "gain_of_placement": self.seconds("sparse_s") / self.seconds("placed_s") - 1,
            "gain_of_dense_placement": total_s / self.seconds("placed_dense_s") - 1,
            "attention_share": self.attention_share,
            "loss": self.loss,
            "break_even_tokens": self.break_even_tokens,
            "tried_to_tokens": self.tried_to_tokens,
            "rows": [row.to_json() for row in self.rows],
        }


def worth(
    setting: Setting,
    traffic: Traffic,
    on_step: Callable[[str, int], None] = lambda *_: None,
    cancelled: Event | None = None,
) -> Worth:
    """Ask for every class of the traffic's requests, prefill and decode, and where it breaks even.

    `on_step` gets each step in words and how many there are at most; each is PLANS_A_STEP plans.
    Raises WorthError where nothing is known of the model's MLP, and what `make_plan` raises.
    """
    if setting.profile.architecture.mlp_size is None:
        raise WorthError(
            f"profile {setting.profile.name!r} has no architecture.mlp_size, without which nobody "
            "knows what share of a step attention is"
        )
    classes = list(traffic.classes())
    most = sum(2 if made else 1 for _, _, made in classes) + len(list(_powers()))
    ask = _Asking(setting, lambda words: on_step(words, most), cancelled or Event())
    rows = []
    for requests, prompt, made in classes:
        rows.append(Row(requests, requests, ask.step("prefill", prompt, 1)))
        if made:
            behind = prompt + made // (2 * requests)
            step = ask.step("decode", behind, setting.decode_batch)
            rows.append(Row(requests, made / setting.decode_batch, step))
    even, tried = None, 0
    for tokens in _powers():
        if ask.cancelled.is_set():
            break
        tried = tokens
        if ask.step("prefill", tokens, 1).gain >= LITTLE:
            even = tokens
            break
    return Worth(setting, tuple(rows), even, tried)


def _powers() -> Iterator[int]:
    tokens = FIRST_TOKENS
    while tokens <= LAST_TOKENS:
        yield tokens
        tokens *= 2


@dataclass(frozen=True, eq=False)
class _Asking:
    """Plans made for one setting."""

    setting: Setting
    on_step: Callable[[str], None]
    cancelled: Event

    def step(self, phase: Phase, context: int, batch: int) -> Step:
        """Dense and sparse heads in order, and placed; two plans say all four."""
        self.on_step(f"{phase} at {context:,} tokens")
        _, dense_step = self._plan(phase, context, batch, {"policy": "dense"})
        plan, step = self._plan(phase, context, batch, self.setting.budget)
        return Step(
            phase=phase,
            context_tokens=context,
            attention_share=dense_step.attention_share,
            stock_s=dense_step.contiguous_step_s,
            placed_dense_s=min(dense_step.step_s, dense_step.contiguous_step_s),
            sparse_s=step.contiguous_step_s,
            # Who gains nothing leaves the order as it is.
            placed_s=min(step.step_s, step.contiguous_step_s),
            loss=plan.loss,
            slots=plan.slots or 0,
            kv_share=1.0 if plan.padding is None else plan.padding.kv_share,
        )

    def _plan(
        self, phase: Phase, context: int, batch: int, budget: Mapping[str, object]
    ) -> tuple[Plan, WholeStep]:
        from solver.planning.planner import make_plan, rates_of  # slow to import: SciPy's solvers

        setting = self.setting
        request = PlanRequest.checked(
            profile=setting.profile,
            gpus=setting.gpus,
            device_type=setting.device_type,
            # A list, so that no plan looks for the context from which it would pay.
            workloads=[{"context_tokens": context, "phase": phase, "batch_size": batch}],
            deployment="tensor_parallel",
            budget=budget,
            placement={"divisible": True, "slots": setting.slots},
            time_limit_s=setting.plan_s,
        )
        plan = make_plan(request, rates_of(request), cancel=self.cancelled)
        assert plan.whole_step is not None  # the MLP is known
        return plan, plan.whole_step


def verdict(found: Worth) -> Sequence[str]:
    """The answer in sentences."""
    gain, share = f"{100 * found.gain:.1f} %", f"{100 * found.attention_share:.1f} %"
    words = {
        "yes": f"yes: {gain} more of this traffic in the same time",
        "little": f"hardly: {gain} more of this traffic in the same time",
        "no": f"no: {gain} of this traffic's time is to be had",
    }[found.answer]
    said = [f"{words}; attention is {share} of a stock engine's time"]
    if found.break_even_tokens is None:
        said.append(f"no prompt of up to {found.tried_to_tokens:,} tokens gains 1 %")
    else:
        said.append(
            f"prompts gain 1 % or more from about {found.break_even_tokens:,} tokens on, "
            "choosing pieces included"
        )
    if found.loss is None:
        said.append(
            "what the budgets cost in quality is not known: measure the model with `hplb profiles "
            "measure` and `hplb calibrate`"
        )
    else:
        said.append(f"the budgets are predicted to cost at most {found.loss:.3f} nats a token")
    return [*said, *_basis(found)]


def _basis(found: Worth) -> Iterator[str]:
    """What the seconds and the budgets were taken from, where that is not this very case."""
    setting, steps = found.setting, [row.step for row in found.rows]
    kind = setting.device_type
    longest = max(step.context_tokens for step in steps)
    for phase in dict.fromkeys(step.phase for step in steps):
        rates = catalogue_rates([kind], phase)[kind]
        fitted = rates.fitted_to_tokens
        if not rates.measured:
            yield f"{phase} seconds come from the data sheet of {kind}, unmeasured"
        elif fitted is not None and fitted < longest:
            yield f"{phase} rates of {kind} were fitted up to {fitted:,} tokens"
    heads = setting.profile.heads
    if isinstance(heads, CurvesForm):
        measured = heads.context_tokens
        if any(not measured[0] <= step.context_tokens <= measured[-1] for step in steps):
            yield (
                f"the profile was measured from {measured[0]:,} to {measured[-1]:,} tokens; "
                "beyond, budgets are taken as the same shares of the context"
            )
