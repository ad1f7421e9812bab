"""TANGRAM's requests as workloads: plans made from some of them, judged on others.

Every request has its context, and what each KV head kept of it as budgets. Unit `kv_group`,
predicted seconds on H200 devices; every plan is `make_plan`'s. The kinds of plan are those of
benchmarks/drift.py.
"""

from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from profiles.catalogue import catalogue_rates
from profiles.cost.work import Phase
from profiles.heads import BudgetsForm, SamplesForm
from profiles.importers import tangram
from profiles.model import ModelProfile
from profiles.public_models import resolve_architecture
from solver.deadline import Deadline
from solver.planning.costs import placement_problem
from solver.planning.planner import make_plan
from solver.planning.scenarios import Known, scenarios
from solver.plans import Plan
from solver.request import PlanRequest
from solver.shares import Floats

DEVICE = "h200"
BATCH: dict[Phase, int] = {"decode": 32, "prefill": 1}
HEDGE = 0.2
"""Weight of the workload whose heads all keep the same, in `hedged` plans, beside the others'."""

Requests = tuple[int, ...]


def read(data: Path) -> list[ModelProfile]:
    """A profile of every model in the folder, its requests as samples."""
    files = sorted(data.glob("*.npz"))
    names = [file.name.partition("-instruct")[0].replace("__", "-") for file in files]
    return [
        tangram.read(file, name, resolve_architecture(file))
        for file, name in zip(files, names, strict=True)
    ]


def by_task(samples: SamplesForm) -> dict[str, Requests]:
    """The requests of every task."""
    return {
        task: tuple(i for i, other in enumerate(samples.task) if other == task)
        for task in dict.fromkeys(samples.task)
    }


@dataclass(frozen=True)
class Judged:
    """Seconds of a kind of plan on every judged request; `gap` of the plan on what it was for."""

    each_s: list[float]
    gap: float

    @property
    def mean_s(self) -> float:
        return float(np.mean(self.each_s))


class Bench:
    """Plans of one profile for so many devices, and their seconds on every request."""

    def __init__(self, profile: ModelProfile, gpus: int, phase: Phase, time_limit_s: float) -> None:
        assert isinstance(profile.heads, SamplesForm)  # as the importer makes them
        self.profile, self.samples = profile, profile.heads
        self.gpus, self.phase, self.time_limit_s = gpus, phase, time_limit_s
        self.rates = catalogue_rates([DEVICE], phase)
        self.plans: dict[tuple[str, Requests], Plan] = {}
        every = tuple(range(len(self.samples.context_tokens)))
        known = [Known(profile, self.rates)] * len(every)
        request = self._request("workloads", every)
        unhurried = Deadline(np.inf, Event())
        demands = [scenario.demand for scenario in scenarios(request, known, unhurried)]
        rules, types = request.placement, request.device_types
        problem = placement_problem(demands, profile.architecture, types, rules)
        self.layers = [problem.layer(index) for index in range(problem.layers)]

    def plan(self, kind: str, requests: Requests) -> Plan:
        """The plan of a kind from these requests; each is made once."""
        if (kind, requests) not in self.plans:
            request = self._request(kind, requests)
            self.plans[kind, requests] = make_plan(request, [self.rates] * len(request.steps))
        return self.plans[kind, requests]

    def seconds(self, plan: Plan) -> Floats:
        """Makespan of every request, `[requests]`."""
        shape = self.profile.architecture
        groups = np.arange(0, shape.query_heads, shape.group_size)
        placed = zip(self.layers, plan.placed, strict=True)
        makespans_s = [layer.loads_of_shares(s.rows(groups)).max(axis=1) for layer, s in placed]
        return np.asarray(np.sum(makespans_s, axis=0))

    def judged(self, kind: str, planned_on: Requests, judged_on: Requests) -> Judged:
        plan = self.plan(kind, planned_on)
        return Judged(self.seconds(plan)[list(judged_on)].tolist(), plan.gap)

    def oracle(self, judged_on: Requests) -> Judged:
        alone = [self.judged("workloads", (request,), (request,)) for request in judged_on]
        return Judged([one.each_s[0] for one in alone], max(one.gap for one in alone))

    def _request(self, kind: str, requests: Requests) -> PlanRequest:
        contexts = [self.samples.context_tokens[request] for request in requests]
        step: dict[str, Any] = {"batch_size": BATCH[self.phase], "phase": self.phase}
        alike = {**step, "context_tokens": round(float(np.mean(contexts)))}
        steps = [
            {**step, "context_tokens": context, "sample": request}
            for context, request in zip(contexts, requests, strict=True)
        ]
        if kind == "mean":
            steps = [alike]
        elif kind == "hedged":
            profile = self._alike(requests)
            steps.append({**alike, "weight": HEDGE * len(requests), "profile": profile})
        return PlanRequest.model_validate(
            {
                "profile": self._of(requests) if kind == "mean" else self.profile,
                "gpus": self.gpus,
                "device_type": DEVICE,
                "workloads": steps,
                "objective": "worst" if kind == "worst" else "mean",
                "placement": {"unit": "kv_group"},
                "method": "contiguous" if kind == "contiguous" else "auto",
                "time_limit_s": self.time_limit_s,
            }
        )

    def _of(self, requests: Requests) -> ModelProfile:
        """The profile with these requests only."""
        fixed = self.samples.fixed_tokens
        samples = SamplesForm(
            context_tokens=[self.samples.context_tokens[r] for r in requests],
            task=[self.samples.task[r] for r in requests],
            kept_tokens=[self.samples.kept_tokens[r] for r in requests],
            fixed_tokens=fixed and [fixed[r] for r in requests],
        )
        return self.profile.model_copy(update={"heads": samples})

    def _alike(self, requests: Requests) -> ModelProfile:
        """Every head of a layer keeps what they keep on average."""
        kept = np.array([self.samples.kept_tokens[request] for request in requests])
        tokens = np.broadcast_to(kept.mean(axis=(0, 2))[:, None], kept.shape[1:])
        return self.profile.model_copy(update={"heads": BudgetsForm(tokens=tokens.tolist())})
