"""What the planner makes of a method's budgets: predicted seconds, and filled bubbles."""

from dataclasses import dataclass

import numpy as np

from executor.evaluation.density import Ints, Setting
from profiles.catalogue import catalogue_rates
from profiles.heads import BudgetsForm
from profiles.model import ModelProfile
from profiles.selection import Selection
from solver.budgets.options import BudgetOptions
from solver.planning.planner import make_plan
from solver.plans import Plan
from solver.request import Method, PlanRequest

TIME_LIMIT_S = 2.0


@dataclass(frozen=True)
class Devices:
    """So many devices of a type of the catalogue share the heads."""

    count: int
    type: str


def filled_budgets(
    setting: Setting, selection: Selection, budget: BudgetOptions, devices: Devices
) -> Ints:
    """Budgets [layers, heads] once what idles under the planner's placement is spent on them."""
    profile = setting.profile.model_copy(update={"selection": selection})
    plan = _plan(setting, profile, devices, budget.model_copy(update={"fill": True}), "auto")
    return np.array(plan.budgets, dtype=np.int64)


def predicted_s(
    setting: Setting, tokens: Ints, selection: Selection, devices: Devices, method: Method
) -> float:
    """Attention's seconds over all layers as the planner predicts them.

    `tokens` [layers, heads] are the budgets, and `method` places the heads.
    """
    heads = BudgetsForm(tokens=tokens.astype(float).tolist())
    profile = ModelProfile.model_validate(
        {
            "name": setting.profile.name,
            "architecture": setting.profile.architecture,
            "heads": heads,
            "selection": selection,
            "source": "budgets of an evaluated method",
            "synthetic": setting.profile.synthetic,
        }
    )
    return _plan(setting, profile, devices, BudgetOptions(), method).makespan_s


def _plan(
    setting: Setting,
    profile: ModelProfile,
    devices: Devices,
    budget: BudgetOptions,
    method: Method,
) -> Plan:
    request = PlanRequest.checked(
        profile=profile,
        gpus=devices.count,
        device_type=devices.type,
        context_tokens=setting.context_tokens,
        block_tokens=setting.block_tokens,
        piece_tokens=setting.piece_tokens or None,
        budget=budget,
        method=method,
        time_limit_s=TIME_LIMIT_S,
        seed=0,
    )
    return make_plan(request, [catalogue_rates([devices.type], "prefill")])
