"""What a placement gains of the whole step, and what is said where that is next to nothing."""

from typing import Any

import numpy as np
import pytest

from profiles.catalogue import catalogue_profile
from profiles.fetched import SMOLLM2
from profiles.heads import BudgetsForm, RulesForm
from profiles.importers.kinds import import_profile
from profiles.model import ModelProfile
from profiles.public_models import MODELS
from solver.planning.advice import step_notes
from solver.plans import Plan, WholeStep
from tests.profiles.published import HEADS
from tests.solver.profiles import budgets_profile, faults, plan_of, stated_budgets

SHAPE = MODELS["Llama-3-8B"].model_copy(update={"layers": 2})


def profile_of(heads: Any) -> ModelProfile:
    return ModelProfile(
        name="made-up", architecture=SHAPE, heads=heads, source="made up", synthetic=True
    )


def growing() -> ModelProfile:
    """A quarter of the heads in order are full, the others keep 64 tokens at any context."""
    full = np.repeat([1.0, 0.0, 0.0, 0.0], 8)
    alpha = np.where(full > 0, 0.0, 64.0)
    return profile_of(RulesForm(alpha_tokens=[alpha.tolist()] * 2, beta=[full.tolist()] * 2))


def stated(tokens: float) -> ModelProfile:
    return profile_of(BudgetsForm(tokens=[[tokens] * 32] * 2))


def step_of(plan: Plan) -> WholeStep:
    assert faults(plan) == []
    assert plan.whole_step is not None
    return plan.whole_step


@pytest.mark.parametrize("deployment", ["disaggregated", "tensor_parallel"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_attention_and_what_is_around_it_make_the_step(deployment: str, phase: str) -> None:
    fields = {"gpus": 8, "context_tokens": 131_072, "deployment": deployment, "phase": phase}
    plan = plan_of(growing(), placement={"divisible": True}, **fields)
    whole = step_of(plan)
    parts_s = whole.attention_s + whole.projections_s + whole.mlp_s + whole.all_reduce_s
    assert whole.step_s == pytest.approx(parts_s)
    if deployment == "disaggregated":
        assert whole.attention_s == pytest.approx(plan.makespan_s)
    else:
        assert whole.attention_s < plan.makespan_s <= parts_s
    worth_it = whole.gain >= 0.01
    assert worth_it or phase == "decode"
    assert worth_it != any("not worth it" in note for note in plan.warnings)
    assert not worth_it or whole.pays_from_tokens is whole.tried_to_tokens is None


def test_the_stock_layout_gains_nothing_over_itself() -> None:
    plan = plan_of(growing(), gpus=8, context_tokens=131_072, method="contiguous")
    whole = step_of(plan)
    assert whole.gain == pytest.approx(0, abs=1e-12)
    assert whole.attention_share == pytest.approx(whole.attention_s / whole.step_s)


def test_slots_are_compared_with_groups_in_as_few_slots() -> None:
    """Of 3 KV groups a stock engine gives 2 devices 2 and 1, whatever it does with the heads."""
    real = catalogue_profile(SMOLLM2.name)
    asked = {"gpus": 2, "context_tokens": 4096, "deployment": "tensor_parallel"}
    asked |= {"budget": {"policy": "dense"}}
    in_order = plan_of(real, method="contiguous", placement={"slots": 2}, **asked)
    assert step_of(in_order).gain == pytest.approx(0, abs=1e-12)
    divided = step_of(plan_of(real, placement={"slots": 2, "divisible": True}, **asked))
    assert divided.contiguous_attention_s == pytest.approx(step_of(in_order).attention_s)
    assert divided.attention_s < 0.9 * divided.contiguous_attention_s  # 0.75, but for launches
    assert divided.gain > 0


def test_where_it_is_not_worth_it_the_context_is_named_from_which_it_is() -> None:
    rules = {"placement": {"divisible": True}, "gpus": 8}
    short = plan_of(growing(), context_tokens=512, time_limit_s=30, **rules)
    whole = step_of(short)
    assert whole.gain < 0.01
    assert whole.pays_from_tokens is not None
    [note] = [note for note in short.warnings if note.startswith("not worth it here")]
    assert f"from about {whole.pays_from_tokens:,} tokens" in note
    there = plan_of(growing(), context_tokens=whole.pays_from_tokens, time_limit_s=30, **rules)
    assert step_of(there).gain >= 0.01


def test_where_heads_are_alike_it_never_is() -> None:
    plan = plan_of(stated(1024), gpus=8, context_tokens=65_536, time_limit_s=30)
    whole = step_of(plan)
    assert whole.gain == pytest.approx(0, abs=1e-9)
    assert (whole.pays_from_tokens, whole.tried_to_tokens) == (None, 2**20)
    assert any("nor is it at any context up to 1,048,576 tokens" in n for n in plan.warnings)


@pytest.mark.parametrize(
    ("gain", "words"),
    [(0.1744, "gains 17.44 %"), (-0.0271, "loses 2.71 %"), (-1e-9, "gains 0.00 %")],
)
def test_a_loss_is_called_one(gain: float, words: str) -> None:
    whole = step_of(plan_of(stated(1024), gpus=8, context_tokens=65_536, time_limit_s=1e-9))
    changed = whole.model_copy(update={"gain": gain})
    assert changed.gained == words
    assert gain > 0 or f"this placement {words} of it" in step_notes("p", changed)[0]


def test_no_other_context_is_tried_without_time() -> None:
    plan = plan_of(stated(1024), gpus=8, context_tokens=65_536, time_limit_s=1e-9)
    whole = step_of(plan)
    assert whole.pays_from_tokens is whole.tried_to_tokens is None
    assert any(n.startswith("not worth it here") and n.endswith("layout") for n in plan.warnings)


def test_an_unknown_mlp_leaves_the_share_unknown_and_says_so() -> None:
    plan = plan_of(budgets_profile())
    assert plan.whole_step is None
    assert "whole_step" not in plan.model_dump()
    assert any(
        "unknown: profile 'test-profile' has no architecture.mlp_size" in n for n in plan.warnings
    )


def test_workloads_are_weighed_as_the_plans_figures_are() -> None:
    profile = stated_budgets(np.array([[64.0, 4096, 64, 64]] * 2), 2, mlp_size=1024)
    contexts = [{"context_tokens": 8192, "weight": 3}, {"context_tokens": 4096}]
    both = step_of(plan_of(profile, gpus=2, workloads=contexts))
    each = [
        step_of(plan_of(profile, gpus=2, context_tokens=step["context_tokens"]))
        for step in contexts
    ]
    assert both.mlp_s == pytest.approx(0.75 * each[0].mlp_s + 0.25 * each[1].mlp_s)


@pytest.mark.skipif(not HEADS.exists(), reason=f"{HEADS} is not on this machine")
@pytest.mark.parametrize(
    ("kind", "file", "share", "gain"),
    [
        ("duo-attention", "duo-attention/Meta-Llama-3.1-8B-Instruct.tsv", 0.59, 0.40),
        (
            "minference",
            "minference/Llama_3.1_8B_Instruct_128k_kv_out_v32_fit_o_best_pattern.json",
            0.13,
            0.034,
        ),
    ],
)
def test_beside_arithmetic_from_outside(kind: Any, file: str, share: float, gain: float) -> None:
    """Attention's share and the gain of dividing heads over 8 GPUs at 131,072 tokens."""
    options = {"full_share": 0.5} if kind == "duo-attention" else {}
    profile = import_profile(HEADS / file, name="real", kind=kind, model="Llama-3.1-8B", **options)
    plan = plan_of(
        profile,
        gpus=8,
        context_tokens=131_072,
        deployment="tensor_parallel",
        placement={"divisible": True},
        time_limit_s=10,
    )
    whole = step_of(plan)
    assert whole.attention_share == pytest.approx(share, abs=0.06)
    assert whole.gain == pytest.approx(gain, abs=0.06)
