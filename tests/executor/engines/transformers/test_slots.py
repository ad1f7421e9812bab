"""A checkpoint with a plan in it attends by its map: the model's logits and tokens, rank by rank.

Covering budgets are dense attention. Within sparse ones what is compared is prompts: a decoding
list serves the heads of a KV group that are on a rank, and so another where they are divided.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from executor.engines.transformers.attach import attached
from executor.engines.transformers.slots import attach_slots
from executor.errors import AttentionError
from executor.inference.budget_policy import BudgetPolicy
from executor.weights.apply import apply
from solver.plans import Plan
from tests.executor.engines.transformers import ranks
from tests.executor.plans import Placement, whole
from tests.executor.weights.models import DIVIDED, planned, save
from tests.executor.weights.test_families import quiet

THIRDS: list[Placement] = [
    [*[[(0, 0.2), (2, 0.8)]] * 2, [(0, 1.0)], [(0, 0.5), (1, 0.5)], *[[(1, 1.0)]] * 2],
    whole(2, 2, 0, 0, 0, 0),
]
"""Three devices, of which one has nothing in the second layer."""


def applied(family: str, folder: Path, layers: list[Placement], devices: int = 2) -> Plan:
    """The model in `folder`/model, and beside it with the plan, whose budgets are sparse, in
    `folder`/sparse, and in `folder`/covering with budgets that are not."""
    save(family, folder / "model")
    plan = planned(layers, slots=2, devices=devices)
    budgets = [[512] * plan.architecture.query_heads] * plan.architecture.layers
    dense = plan.model_copy(update={"budgets": budgets}).identified()
    for name, made in (("covering", dense), ("sparse", plan)):
        apply(folder / "model", made, folder / name, False, quiet)
    return plan


def sparse(folder: Path, plan: Plan) -> dict[str, torch.Tensor]:
    """What the model itself computes within the plan's budgets, and that they change something."""
    model = ranks.loaded(folder / "model")
    dense = ranks.chunks(model)["logits"]
    with attached(model, BudgetPolicy.of_plan(plan)):
        found = ranks.chunks(model)
    assert (found["logits"] - dense).abs().max() > 0.01 * dense.abs().max()
    return found


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value.is_floating_point():
            assert (found[name] - value).abs().max() <= 5e-5 * value.abs().max(), name
        else:
            assert torch.equal(found[name], value), name


@pytest.mark.parametrize("family", ["llama with biases", "qwen3", "gemma3", "mixtral"])
def test_all_ranks_slots_in_one_process_are_the_model(family: str, tmp_path: Path) -> None:
    plan = applied(family, tmp_path, DIVIDED)
    model = ranks.loaded(tmp_path / "covering")
    trace = attach_slots(model, tmp_path / "covering")
    found = ranks.computed(model)
    assert trace.share > 0
    same(found, ranks.computed(ranks.loaded(tmp_path / "model")))
    model = ranks.loaded(tmp_path / "sparse")
    attach_slots(model, tmp_path / "sparse")
    same(ranks.chunks(model), sparse(tmp_path, plan))


@pytest.mark.parametrize(
    ("family", "layers", "processes"), [("llama", DIVIDED, 2), ("qwen3", THIRDS, 3)]
)
def test_every_process_of_stock_tensor_parallelism_attends_in_its_slots(
    family: str, layers: list[Placement], processes: int, tmp_path: Path
) -> None:
    plan = applied(family, tmp_path, layers, processes)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", ranks.__file__, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-4000:]
    covering = ranks.computed(ranks.loaded(tmp_path / "model"))
    for name, expected in (("covering", covering), ("sparse", sparse(tmp_path, plan))):
        for rank in range(processes):
            same(torch.load(tmp_path / f"{name}{rank}.pt"), expected)


def test_a_model_without_the_maps_heads_is_refused(tmp_path: Path) -> None:
    applied("llama", tmp_path, DIVIDED)
    with pytest.raises(AttentionError, match="its map has 8 query slots, the model 6 heads"):
        attach_slots(ranks.loaded(tmp_path / "model"), tmp_path / "covering")
