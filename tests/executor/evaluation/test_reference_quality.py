"""The shipped model, its measured profile and the executor together: needles are still found."""

import pytest
import torch

from executor.evaluation.asked import ask
from executor.evaluation.loaded import load
from executor.evaluation.scoring import answer
from executor.inference.budget_policy import BudgetPolicy
from profiles.catalogue import (
    REFERENCE_MODEL,
    REFERENCE_PROFILE,
    catalogue_profile,
    catalogue_rates,
)
from profiles.selection import POOLED
from profiles.tasks.ruler import make
from solver.planning.planner import make_plan
from solver.request import PlanRequest

TOKENS = 512
TASKS = ("niah_single_1", "niah_multikey_1", "niah_multikey_2", "vt")


@pytest.mark.slow
def test_a_plan_keeps_the_answers_that_means_of_blocks_lose() -> None:
    torch.set_num_threads(1)
    loaded = load(REFERENCE_MODEL)
    profile = catalogue_profile(REFERENCE_PROFILE)
    request = PlanRequest.model_validate(
        {
            "profile": profile,
            "gpus": 2,
            "device_type": "cpu",
            "context_tokens": TOKENS,
            "budget": {"policy": "max_min", "tokens": 144},
        }
    )
    plan = make_plan(request, [catalogue_rates(["cpu"], "prefill")])
    assert plan.workload.block_tokens == 16
    ours = BudgetPolicy.of_plan(plan)
    pooled = BudgetPolicy(plan.budgets, selection=POOLED, block_tokens=16)
    scores = {"dense": 0.0, "ours": 0.0, "pooled": 0.0}
    for task in TASKS:
        for seed in range(3):
            asked = ask(make(task, TOKENS, seed, loaded.count), seed, loaded.tokenizer)
            for name, policy in (("dense", None), ("ours", ours), ("pooled", pooled)):
                score, computed = answer(loaded.model, asked, policy, 16)
                scores[name] += score / (3 * len(TASKS))
                if policy is not None:
                    assert computed.tiles < 0.5 * computed.dense_tiles
    assert scores["dense"] > 0.95
    assert scores["ours"] > scores["dense"] - 0.05
    assert scores["pooled"] < scores["ours"] - 0.2
