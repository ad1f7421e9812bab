"""Plans for a whole traffic, as one engine runs them: its steps are weighted workloads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

from profiles.cost.work import Phase
from profiles.model import ModelProfile
from solver.plans import Plan, WholeStep
from solver.report.stock_base import StockBase
from solver.report.traffic_steps import Steps
from solver.request import PlanRequest

OWN_WEIGHT = 1e-6
"""Of what budgets are made for, beside the traffic's steps, the largest of which weigh 1."""
DENSE: Mapping[str, object] = {"policy": "dense"}
STATED: Mapping[str, object] = {"policy": "profile", "as_chosen": True}


@dataclass(frozen=True)
class Setting:
    """What the traffic meets: a model's profile on `gpus` devices of a type.

    `budget` and `slots` as a request has them; `plan_s` seconds for each of the plans.
    """

    profile: ModelProfile
    gpus: int
    device_type: str
    budget: Mapping[str, object]
    slots: int | str = "auto"
    plan_s: float = 2.0


@dataclass(frozen=True, eq=False)
class EnginePlan:
    """A plan, and what it gives each of the traffic's steps."""

    plan: Plan
    steps: Sequence[WholeStep]


@dataclass(frozen=True, eq=False)
class Vector:
    """One budget vector for all steps: a `made` plan's, `stated` as a profile."""

    made: Plan
    stated: ModelProfile

    @property
    def dense(self) -> bool:
        """Whether no head leaves anything out of the longest context."""
        reaches = self.made.architecture.reaches(self.made.workload.context_tokens)
        pairs = zip(self.made.budgets, reaches, strict=True)
        return all(min(tokens) >= reach for tokens, reach in pairs)


@dataclass(frozen=True, eq=False)
class EnginePlans:
    """Plans made in a setting for one traffic."""

    setting: Setting
    traffic: Sequence[Steps]
    cancelled: Event

    def stock(self, base: StockBase) -> EnginePlan:
        """A replica of stock engines: dense heads in the file's order, on its ranks alone."""
        small = replace(self.setting, gpus=base.ranks)
        there = replace(self, setting=small)
        return there._made(small.profile, DENSE, {}, method="contiguous")

    def dense(self) -> EnginePlan:
        return self._in_slots(self.setting.profile, DENSE, self.setting.slots)

    def sparse(self, vector: Vector) -> EnginePlan:
        return self._in_slots(vector.stated, STATED, self.setting.slots)

    def in_least_slots(self, vector: Vector, found: EnginePlan) -> EnginePlan:
        """As `found`, which was made for the vector, in no slot more than hold all KV groups."""
        padding = found.plan.padding
        assert padding is not None  # slots were asked for
        if found.plan.slots == padding.least_slots:
            return found
        return self._in_slots(vector.stated, STATED, padding.least_slots)

    def vector(self) -> Vector:
        """The setting's budgets for the longest steps: what is predicted to be lost there is the
        most that any of them loses."""
        made = self._plan(
            self.setting.profile, self.setting.budget, {}, [self._longest], method="contiguous"
        )[1]
        from solver.planning.each_workload import with_its_budgets

        return Vector(made, with_its_budgets(self.setting.profile, made))

    @property
    def _longest(self) -> dict[str, object]:
        """As a prefill, in whose query blocks heads are divided, where there is any."""
        longest = max(self.traffic, key=lambda steps: steps.context_tokens)
        phase: Phase = "prefill" if any(s.phase == "prefill" for s in self.traffic) else "decode"
        return {
            "context_tokens": longest.context_tokens,
            "phase": phase,
            "batch_size": 1 if phase == "prefill" else longest.batch_size,
        }

    def _in_slots(
        self, profile: ModelProfile, budget: Mapping[str, object], slots: int | str
    ) -> EnginePlan:
        return self._made(profile, budget, {"divisible": True, "slots": slots})

    def _made(
        self,
        profile: ModelProfile,
        budget: Mapping[str, object],
        placement: Mapping[str, object],
        **how: Any,
    ) -> EnginePlan:
        from solver.planning.each_workload import other_steps
        from solver.planning.planner import rates_of

        most = max(steps.times for steps in self.traffic)
        workloads: list[Mapping[str, object]] = [
            {**self._longest, "weight": OWN_WEIGHT},
            *(
                {
                    "context_tokens": steps.context_tokens,
                    "phase": steps.phase,
                    "batch_size": steps.batch_size,
                    "weight": steps.times / most,
                }
                for steps in self.traffic
            ),
        ]
        request, plan = self._plan(profile, budget, placement, workloads, **how)
        return EnginePlan(plan, other_steps(request, rates_of(request), plan))

    def _plan(
        self,
        profile: ModelProfile,
        budget: Mapping[str, object],
        placement: Mapping[str, object],
        workloads: Sequence[Mapping[str, object]],
        **how: Any,
    ) -> tuple[PlanRequest, Plan]:
        from solver.planning.planner import make_plan, rates_of  # slow to import: SciPy's solvers

        request = PlanRequest.checked(
            profile=profile,
            gpus=self.setting.gpus,
            device_type=self.setting.device_type,
            # A list, so that no plan looks for the context from which it would pay.
            workloads=workloads,
            deployment="tensor_parallel",
            budget=budget,
            placement=placement,
            time_limit_s=self.setting.plan_s,
            **how,
        )
        return request, make_plan(request, rates_of(request), cancel=self.cancelled)
