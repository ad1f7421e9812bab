"""What the planner makes, under every kind of option, keeps its promises."""

import pytest

from solver.verifier import verify
from tests.solver.profiles import budgets_profile, plan_of

WORKLOADS = [
    {"context_tokens": 8192, "weight": 2},
    {"context_tokens": 3000},
    {"context_tokens": 8192, "phase": "decode", "batch_size": 3},
]
UNLIKE = [{"type": "h200", "count": 2}, {"type": "a100", "count": 1}]
REQUESTS: dict[str, dict[str, object]] = {
    "whole heads": {"gpus": 3, "deployment": "tensor_parallel"},
    "divided": {"placement": {"divisible": True, "max_copies": 2}},
    "divided, copies free": {"placement": {"divisible": True, "copies": "free"}},
    "divided decode": {
        "phase": "decode",
        "batch_size": 4,
        "placement": {"divisible": True, "copies": "free"},
    },
    "weighted workloads": {"workloads": WORKLOADS, "placement": {"divisible": True}},
    "worst workload": {"workloads": WORKLOADS, "objective": "worst", "devices": UNLIKE},
    "memory": {"deployment": "tensor_parallel", "placement": {"memory": {}}},
}


@pytest.mark.parametrize("options", REQUESTS.values(), ids=REQUESTS.keys())
def test_real_plans_are_accepted(options: dict[str, object]) -> None:
    verdict = verify(plan_of(budgets_profile(), time_limit_s=0.3, **options))
    assert verdict.faults == []
    if "objective" not in options:  # whose bounds may rest on a search over all workloads
        assert verdict.unproved == []
