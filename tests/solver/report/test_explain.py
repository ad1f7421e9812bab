"""What binds a layer, in words, from a plan's JSON."""

import numpy as np
import pytest

from profiles.heads import BudgetsForm
from solver.plans import Plan
from solver.report.explain import explain
from tests.solver.profiles import budgets_profile, plan_of


def plan_with(tokens: list[float], **fields: object) -> Plan:
    profile = budgets_profile(layers=1, heads=len(tokens), kv_heads=len(tokens))
    heads = BudgetsForm(tokens=[tokens])
    return plan_of(profile.model_copy(update={"heads": heads}), **fields)


def test_a_head_that_fills_its_device_is_named() -> None:
    [layer] = explain(plan_with([64.0, 65536.0, 64.0, 64.0], gpus=2, context_tokens=65536))
    assert "head 1 alone fills device" in layer.binds
    assert "idles" in layer.binds


def test_a_full_house_says_that_only_less_work_helps() -> None:
    [layer] = explain(plan_with([4096.0] * 8, gpus=4))
    assert layer.proof == "mean load"
    assert "every device is busy" in layer.binds
    assert layer.gap == pytest.approx(0, abs=1e-6)


def test_pigeonhole_is_put_in_words() -> None:
    [layer] = explain(plan_with([4096.0] * 5, gpus=4))
    assert "one more of them" in layer.binds


def test_copies_are_priced_in_the_words() -> None:
    plan = plan_of(
        budgets_profile(heads=32, kv_heads=2), gpus=8, deployment="tensor_parallel", method="greedy"
    )
    layers = explain(plan)
    assert [layer.layer for layer in layers] == [0, 1, 2]
    assert all("K/V copies take" in layer.binds for layer in layers)
    assert all("open:" in layer.binds for layer in layers if layer.gap > plan.tolerance)


def test_every_layer_is_explained_whatever_the_unit_or_division() -> None:
    profile = budgets_profile(heads=32, kv_heads=8)
    for rules in ({"unit": "kv_group"}, {"divisible": True}):
        plan = plan_of(profile, placement=rules)
        found = explain(plan)
        assert [e.makespan_s for e in found] == [p.makespan_s for p in plan.layers]
        assert all(e.binds for e in found)
        assert all(np.isfinite(e.gap) for e in found)
