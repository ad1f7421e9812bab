"""A checkpoint with a plan in it attends by its map: the model's logits and tokens.

Covering budgets are dense attention. Within sparse ones what is compared is prompts: a decoding
list serves the heads of a KV group that are on a rank, and so another where they are divided.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from executor.engines.transformers.attach import attached
from executor.engines.transformers.slots import attach_slots
from executor.errors import AttentionError
from executor.inference.budget_policy import BudgetPolicy
from executor.weights.apply import apply
from solver.plans import Plan
from tests.executor.engines.transformers import ranks
from tests.executor.weights.models import DIVIDED, planned, save
from tests.executor.weights.test_families import quiet


def covering(plan: Plan) -> Plan:
    """The same placement with budgets that cover every context here."""
    budgets = [[512] * plan.architecture.query_heads] * plan.architecture.layers
    return plan.model_copy(update={"budgets": budgets}).identified()


def applied(family: str, folder: Path) -> Plan:
    """The model in `folder`/model, and beside it with the plan, whose budgets are sparse, in
    `folder`/sparse, and in `folder`/covering with budgets that are not."""
    save(family, folder / "model")
    plan = planned(DIVIDED, slots=2)
    for name, made in (("covering", covering(plan)), ("sparse", plan)):
        apply(folder / "model", made, folder / name, False, quiet)
    return plan


Computes = Callable[[Any], dict[str, torch.Tensor]]


def sparse(folder: Path, plan: Plan, computes: Computes = ranks.chunks) -> dict[str, torch.Tensor]:
    """What the model itself computes within the plan's budgets, and that they change something."""
    model = ranks.loaded(folder / "model")
    dense = computes(model)["logits"]
    with attached(model, BudgetPolicy.of_plan(plan)):
        found = computes(model)
    assert (found["logits"] - dense).abs().max() > 0.01 * dense.abs().max()
    return found


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value.is_floating_point():
            assert (found[name] - value).abs().max() <= 5e-5 * value.abs().max(), name
        else:
            assert torch.equal(found[name], value), name


@pytest.mark.parametrize("family", ["llama with biases", "qwen3", "gemma3", "gpt_oss", "mixtral"])
def test_all_ranks_slots_in_one_process_are_the_model(family: str, tmp_path: Path) -> None:
    plan = applied(family, tmp_path)
    model = ranks.loaded(tmp_path / "covering")
    trace = attach_slots(model, tmp_path / "covering")
    found = ranks.computed(model)
    assert trace.share > 0
    same(found, ranks.computed(ranks.loaded(tmp_path / "model")))
    model = ranks.loaded(tmp_path / "sparse")
    attach_slots(model, tmp_path / "sparse")
    same(ranks.chunks(model), sparse(tmp_path, plan))


def test_a_model_without_the_maps_heads_is_refused(tmp_path: Path) -> None:
    applied("llama", tmp_path)
    with pytest.raises(AttentionError, match="its map has 8 query slots, the model 6 heads"):
        attach_slots(ranks.loaded(tmp_path / "model"), tmp_path / "covering")
