"""Curves and profiles to try budget policies on."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from profiles.architecture import Architecture
from profiles.cost.work import Workload
from profiles.heads import CurvesForm
from profiles.model import ModelProfile
from solver.budgets.allocate import Budgets, allocate
from solver.budgets.basis import Basis
from solver.budgets.curves import MeasuredCurves, RecoveryCurves
from solver.budgets.options import BudgetOptions, Policy
from solver.deadline import Deadline
from tests.solver.problems import soon

BLOCK = 64
SIZED: tuple[Policy, ...] = (
    "uniform",
    "max_min",
    "max_min_shifting",
    "least_error",
    "elastic",
)


def profile_of(heads: dict[str, Any], layers: int, query_heads: int) -> ModelProfile:
    architecture = Architecture(
        layers=layers, query_heads=query_heads, kv_heads=query_heads, head_dim=64, hidden_size=512
    )
    return ModelProfile.model_validate(
        {
            "name": "tested",
            "architecture": architecture,
            "heads": heads,
            "source": "a test",
            "synthetic": True,
        }
    )


def by_block(recovery: Any) -> RecoveryCurves:
    """Curves with recovery `[layers][heads][blocks]` stated at every whole block but the last."""
    values = np.asarray(recovery, dtype=np.float64)
    blocks = values.shape[2] + 1
    form = CurvesForm(
        context_tokens=[blocks * BLOCK],
        budget_tokens=[[BLOCK * (index + 1) for index in range(blocks - 1)]],
        recovery=values[:, :, None, :].tolist(),
    )
    return MeasuredCurves.of(form).at(Workload(blocks * BLOCK, block_tokens=BLOCK))


@st.composite
def small_curves(draw: st.DrawFn, layers: int = 1, ties: bool = True) -> RecoveryCurves:
    """Up to 3 heads and 6 blocks; with `ties`, of few different values, else of distinct ones."""
    heads, points = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    count = layers * heads * points
    if ties:
        values = draw(st.lists(st.integers(0, 10), min_size=count, max_size=count))
    else:
        values = draw(st.permutations(range(1, 100)))[:count]
    shaped = np.array(values, dtype=np.float64).reshape(layers, heads, points)
    return by_block(np.sort(shaped, axis=-1) / (10 if ties else 100))


def random_curves(seed: int, layers: int = 2, heads: int = 8) -> CurvesForm:
    """Concave curves as measured ones are: share ** power, powers from hungry to sparse.

    Errors are what is not recovered, of outputs of unlike sizes.
    """
    rng = np.random.default_rng(seed)
    power = rng.uniform(0.02, 0.9, (layers, heads))
    budgets = [128, 256, 512, 1024, 2048, 4096]
    shares = np.array(budgets) / 8192
    recovery = (shares ** power[..., None])[:, :, None, :]
    error = rng.lognormal(size=(layers, heads))[..., None] * (1 - recovery[:, :, 0])
    return CurvesForm(
        context_tokens=[8192],
        budget_tokens=[budgets],
        recovery=recovery.tolist(),
        output_error=error[:, :, None].tolist(),
        gradient_error=(error / 3).tolist(),
    )


def curved(layers: int = 2, heads: int = 8) -> ModelProfile:
    return profile_of(random_curves(0, layers, heads).model_dump(), layers, heads)


def calibrated(layers: int = 2, heads: int = 8, context: int = 8192) -> ModelProfile:
    """The same, and what its errors cost."""
    ratio = {"mean": 0.5, "low": 0.3, "high": 0.8, "context_tokens": context, "prompts": 5}
    profile = curved(layers, heads)
    return profile_of({**profile.heads.model_dump(), "loss_per_error": ratio}, layers, heads)


def given_to(
    profile: ModelProfile,
    context: int = 8192,
    phase: Any = "prefill",
    tokens: int | None = None,
    seconds: float = 2.0,
    **options: Any,
) -> Budgets:
    """Budgets of a policy; `tokens` only where it takes them."""
    if options.get("policy") in SIZED and not {"density", "loss"} & set(options):
        options["tokens"] = tokens
    asked = BudgetOptions(**options)
    return allotted(profile, asked, Workload(context, phase), soon(seconds))


def allotted(
    profile: ModelProfile, options: BudgetOptions, workload: Workload, deadline: Deadline
) -> Budgets:
    """Budgets by what `options` asks for, and the curves."""
    settled = options.settled(profile)
    return allocate(profile, Basis.of(profile, settled), settled, workload, deadline)
