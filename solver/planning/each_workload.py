"""What one plan gives each of its workloads: an engine has one placement, one number of slots and
one budget vector, whatever comes.

A plan's figures are means over its workloads, and budgets by a policy are made for the context of
each; an engine goes by those of the first one.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import Event

import numpy as np

from profiles.cost.rates import Rates
from profiles.heads import BudgetsForm
from profiles.model import ModelProfile
from solver.budgets.least_error import loss_ratio, summed_error
from solver.deadline import Deadline
from solver.planning.scenarios import Known, scenarios
from solver.planning.whole_step import whole_step
from solver.plans import Plan, WholeStep
from solver.request import PlanRequest

LITTLE_S = 1.0
"""Stated budgets and dense ones need no search."""


def with_its_budgets(profile: ModelProfile, made: Plan) -> ModelProfile:
    """The profile with the budgets of a plan's first workload stated, as an engine has them."""
    heads = BudgetsForm(tokens=[[float(tokens) for tokens in layer] for layer in made.budgets])
    return profile.model_copy(update={"heads": heads, "selection": made.selection})


def other_steps(
    request: PlanRequest, rates: Sequence[Mapping[str, Rates]], plan: Plan
) -> list[WholeStep]:
    """The whole step of every workload but the first under the plan that was made for `request`.

    `rates` as `make_plan` had them. Budgets are stated or dense, the MLP is known, and heads are
    divided in slots alone.
    """
    rules = request.placement.model_copy(update={"slots": plan.slots})
    request = request.model_copy(update={"placement": rules}).settled()
    known = [Known(profile, own) for profile, own in zip(request.profiles, rates, strict=True)]
    until = Deadline(time.monotonic() + LITTLE_S, Event())
    found = []
    _, *steps = scenarios(request, known, until)
    for step, planned in zip(steps, plan.other_workloads, strict=True):
        loads = np.array([planned.loads_s])
        own = whole_step(request, [step], np.ones(1), [plan.placed], loads, until)
        assert own is not None
        found.append(own)
    return found


def predicted_nats(profile: ModelProfile, plan: Plan, context_tokens: int) -> float:
    """What the plan's budgets are predicted to cost in a context of another length, nats a token.

    Raises BudgetError for a profile that is not calibrated.
    """
    workload = replace(plan.workload.workload, context_tokens=context_tokens)
    tokens = np.minimum(plan.budgets, context_tokens)
    return summed_error(profile, tokens, workload) * loss_ratio(profile).mean
