"""Small profiles to plan, made for the tests (synthetic)."""

import numpy as np

from profiles.architecture import Architecture
from profiles.heads import BudgetsForm
from profiles.model import ModelProfile
from solver.planning.planner import make_plan, rates_of
from solver.plans import Plan
from solver.request import PlanRequest
from solver.shares import Floats
from solver.verifier import verify


def budgets_profile(
    layers: int = 3, heads: int = 8, kv_heads: int = 4, *, seed: int = 0, uniform: bool = False
) -> ModelProfile:
    """Stated budgets from 128 to 4,096 tokens."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2, 65, (layers, heads)) * 64.0
    if uniform:
        tokens[:] = 1024.0
    return stated_budgets(tokens, kv_heads)


def stated_budgets(tokens: Floats, kv_heads: int, *, mlp_size: int | None = None) -> ModelProfile:
    """A profile of these budgets, `[layers, heads]`."""
    layers, heads = tokens.shape
    return ModelProfile(
        name="test-profile",
        architecture=Architecture(
            layers=layers,
            query_heads=heads,
            kv_heads=kv_heads,
            head_dim=64,
            hidden_size=512,
            mlp_size=mlp_size,
        ),
        heads=BudgetsForm(tokens=tokens.tolist()),
        source="made for the tests",
        synthetic=True,
    )


def plan_of(profile: ModelProfile, **fields: object) -> Plan:
    """A plan of `profile` by a request with sensible defaults for a test."""
    defaults = {"profile": profile, "gpus": 4, "context_tokens": 8192, "time_limit_s": 1}
    for given, instead in (("devices", "gpus"), ("workloads", "context_tokens")):
        if given in fields:
            defaults.pop(instead)
    request = PlanRequest.model_validate({**defaults, **fields})
    return answer(request)


def answer(request: PlanRequest) -> Plan:
    """The plan of a request whose profiles and current plan are inline, by catalogue rates."""
    return make_plan(request, rates_of(request))


def faults(plan: Plan) -> list[str]:
    """What the verifier finds in the plan's JSON."""
    return verify(plan, time_limit_s=0.2).faults
