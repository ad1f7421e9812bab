"""The workloads of a request with what each refers to: profile, rates, and every head's budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from profiles.cost.rates import Rates
from profiles.cost.work import Workload
from profiles.errors import HplbError
from profiles.heads import BudgetsForm, SamplesForm
from profiles.model import ModelProfile
from profiles.selection import SAMPLED, Selection, Strided
from profiles.sizes import sizes_fault
from solver.budgets.allocate import Budgets, allocate
from solver.budgets.basis import Basis
from solver.budgets.dense_where_cheaper import dense_where_cheaper
from solver.deadline import Deadline
from solver.planning.costs import Demand, placement_problem
from solver.problem import PlacementProblem
from solver.request import PlanRequest, WorkloadOptions


class WorkloadError(HplbError):
    """A workload refers to something that does not fit the others."""


@dataclass(frozen=True)
class Known:
    """What a workload of a request refers to, looked up: a profile, and rates by device type."""

    profile: ModelProfile
    rates: Mapping[str, Rates]


@dataclass(frozen=True, eq=False)
class Scenario:
    """One workload to place for; the weights of a request's scenarios add up to 1."""

    workload: Workload
    weight: float
    known: Known
    budgets: Budgets
    selection: Selection

    @property
    def demand(self) -> Demand:
        """What the placement must serve."""
        return Demand(
            self.workload, self.budgets.tokens, self.known.rates, self.weight, self.selection
        )


def problem_of(request: PlanRequest, steps: Sequence[Scenario]) -> PlacementProblem:
    """Where to place the heads that these scenarios of a request need."""
    return placement_problem(
        [step.demand for step in steps],
        steps[0].known.profile.architecture,
        request.device_types,
        request.placement,
    )


def scenarios(request: PlanRequest, known: Sequence[Known], deadline: Deadline) -> list[Scenario]:
    """Every workload of the request with its budgets; `known` goes by workload.

    Policies that search have until the deadline.
    """
    shape = known[0].profile.architecture
    sizes = _sizes(request, known[0].profile)
    total = sum(step.weight for step in request.steps)
    found = []
    bases: dict[int, Basis | None] = {}  # By the profile's id: curves are made arrays once.
    for index, (step, looked_up) in enumerate(zip(request.steps, known, strict=True)):
        if looked_up.profile.architecture.attention != shape.attention:
            raise WorkloadError(
                f"workloads.{index}.profile: {looked_up.profile.name!r} is of another "
                f"architecture than {known[0].profile.name!r}; one placement serves one model"
            )
        profile = _sampled(looked_up.profile, step, index)
        workload = request.workload_of(step, *sizes)
        selection = _selection(request, looked_up.profile)
        if isinstance(selection, Strided) and workload.block_pieces > 1:
            raise WorkloadError(
                f"piece_tokens: {workload.piece_tokens} in blocks of {workload.block_tokens}, but "
                f"the strided blocks of profile {looked_up.profile.name!r} are as wide as they are "
                "high; give block_tokens alone"
            )
        if id(looked_up.profile) not in bases:
            bases[id(looked_up.profile)] = Basis.of(looked_up.profile, request.budget)
        basis = bases[id(looked_up.profile)]
        budgets = allocate(profile, basis, request.budget, workload, deadline)
        if not (request.budget.as_chosen or _evicts(request)):
            budgets = dense_where_cheaper(
                budgets, shape, workload, selection, looked_up.rates, request.device_types
            )
        found.append(Scenario(workload, step.weight / total, looked_up, budgets, selection))
    return found


def _evicts(request: PlanRequest) -> bool:
    """Whether keys beyond a budget are gone: such a head cannot attend to everything."""
    memory = request.placement.memory
    return memory is not None and memory.kv_retention == "budget"


def _sizes(request: PlanRequest, profile: ModelProfile) -> tuple[int, int]:
    """Block and piece, of which the request may give one and the profile the other."""
    sizes = profile.sizes(request.block_tokens, request.piece_tokens)
    fault = sizes_fault(*sizes)
    if fault is not None:
        raise WorkloadError(f"{fault} of profile {profile.name!r}; give block_tokens too")
    return sizes


def _selection(request: PlanRequest, profile: ModelProfile) -> Selection:
    """The profile's; sampled where a policy gave budgets to a pattern that has only its own."""
    if isinstance(profile.selection, Strided) and request.budget.policy != "profile":
        return SAMPLED
    return profile.selection


def _sampled(profile: ModelProfile, step: WorkloadOptions, index: int) -> ModelProfile:
    """The profile, or one request of its samples as stated budgets at the step's context."""
    if step.sample is None:
        return profile
    heads = profile.heads
    if not isinstance(heads, SamplesForm):
        raise WorkloadError(
            f"workloads.{index}.sample: profile {profile.name!r} has the form {heads.form!r}; "
            "only a profile of samples has requests to pick from"
        )
    if step.sample >= len(heads.context_tokens):
        raise WorkloadError(
            f"workloads.{index}.sample: {step.sample}, but profile {profile.name!r} has "
            f"requests 0 to {len(heads.context_tokens) - 1}"
        )
    tokens = np.maximum(heads.kept_at(step.context_tokens)[step.sample], 1)
    return profile.model_copy(update={"heads": BudgetsForm(tokens=tokens.tolist())})
