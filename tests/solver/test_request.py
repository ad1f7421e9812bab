"""What does not go together in a request is refused, by the field's name."""

import pytest
from pydantic import ValidationError

from profiles.errors import describe
from solver.request import PlanRequest
from tests.solver.profiles import budgets_profile, plan_of

BASE = {"profile": "x", "gpus": 4, "context_tokens": 1024}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"workloads": [{"context_tokens": 64}]}, "context_tokens, or workloads instead"),
        ({"context_tokens": None}, "context_tokens, or workloads instead"),
        ({"context_tokens": None, "workloads": []}, "workloads"),
        ({"context_tokens": None, "workloads": [{"context_tokens": 0}]}, "workloads.0"),
        (
            {"context_tokens": None, "workloads": [{"context_tokens": 9, "weight": 0}]},
            "workloads.0.weight",
        ),
        (
            {"context_tokens": None, "workloads": [{"context_tokens": 9, "weight": float("nan")}]},
            "workloads.0.weight",
        ),
        ({"placement": {"max_copies": 2}}, "placement.max_copies"),
        ({"placement": {"node_size": 2}}, "placement.node_size"),
        ({"placement": {"divisible": True, "node_size": 3}}, "placement.node_size"),
        ({"placement": {"divisible": True, "unit": "kv_group"}}, "placement.divisible"),
        ({"placement": {"divisible": True, "equal_counts": True}}, "placement.divisible"),
        ({"placement": {"divisible": True}, "method": "ilp"}, "cannot divide heads"),
        ({"placement": {"divisible": True, "max_copies": 0}}, "placement.max_copies"),
        ({"placement": {"memory": {"limit_bytes": -1}}}, "placement.memory.limit_bytes"),
        ({"placement": {"memory": {"kv_retention": "none"}}}, "placement.memory.kv_retention"),
        ({"budget": {"policy": "elastic"}}, "budget.density"),
        ({"budget": {"policy": "elastic", "density": 0.5, "tokens": 9}}, "budget.density"),
        ({"budget": {"density": 0.5}}, "budget.density"),
        (
            {"budget": {"policy": "max_min", "loss": 0.02, "tokens": 9}},
            "budget.loss: is for policy 'least_error'",
        ),
        ({"budget": {"policy": "dense", "tokens": 64}}, "budget.tokens: policy 'dense' takes"),
        ({"budget": {"policy": "dense", "margin": 1.0}}, "budget.margin: policy 'dense'"),
        ({"budget": {"policy": "least_error", "loss": 0.02, "tokens": 9}}, "budget.loss"),
        ({"budget": {"policy": "least_error", "loss": 0.02, "error": "gradient"}}, "budget.loss"),
        ({"budget": {"policy": "least_error", "loss": 0}}, "budget.loss"),
        ({"budget": {"policy": "least_error"}}, "the mean tokens per head or a loss"),
        ({"budget": {"fill": True}, "placement": {"divisible": True}}, "budget.fill"),
        (
            {
                "budget": {"fill": True},
                "context_tokens": None,
                "workloads": [{"context_tokens": 9}] * 2,
            },
            "budget.fill",
        ),
        ({"objective": "best"}, "objective"),
        ({"seed": -1}, "seed"),
        (
            {
                "gpus": None,
                "devices": [{"type": "h200"}, {"type": "a100"}],
                "placement": {"divisible": True, "node_size": 1},
            },
            "placement.node_size",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(
    fields: dict[str, object], words: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        PlanRequest.model_validate({**BASE, **fields})
    assert words in describe(raised.value)


def test_a_plain_request_is_one_step_of_weight_one() -> None:
    [step] = PlanRequest.model_validate({**BASE, "batch_size": 3, "phase": "decode"}).steps
    assert (step.context_tokens, step.batch_size, step.phase) == (1024, 3, "decode")


def test_the_digest_names_content_and_not_how_it_was_given() -> None:
    profile = budgets_profile()
    inline = PlanRequest.model_validate({**BASE, "profile": profile})
    named = PlanRequest.model_validate({**BASE, "fresh": True})
    digests = ([profile.digest], ["v1"])
    assert inline.digest(*digests) == named.digest(*digests)
    assert named.digest(["other"], ["v1"]) != named.digest(*digests)
    seeded = PlanRequest.model_validate({**BASE, "seed": 1})
    assert seeded.digest(*digests) != named.digest(*digests)


def test_the_digest_of_a_current_plan_is_its_id() -> None:
    plan = plan_of(budgets_profile(), method="greedy")
    by_id = PlanRequest.model_validate({**BASE, "placement": {"current_plan": plan.id}})
    inline = PlanRequest.model_validate({**BASE, "placement": {"current_plan": plan}})
    assert by_id.digest(["p"], ["v"]) == inline.digest(["p"], ["v"])
