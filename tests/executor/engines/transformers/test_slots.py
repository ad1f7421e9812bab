"""A checkpoint with a plan in it attends by its map: the model's logits and tokens, rank by rank.

Budgets cover every context here, so that what is computed is dense attention.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from executor.engines.transformers.attach import detach
from executor.engines.transformers.slots import attach_slots
from executor.errors import AttentionError
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


def covering(plan: Plan) -> Plan:
    budgets = [[512] * plan.architecture.query_heads] * plan.architecture.layers
    return plan.model_copy(update={"budgets": budgets}).identified()


def applied(family: str, folder: Path, layers: list[Placement], devices: int = 2) -> Path:
    """The model in `folder`/model, and beside it with its plan in `folder`/out."""
    save(family, folder / "model")
    plan = covering(planned(layers, slots=2, devices=devices))
    apply(folder / "model", plan, folder / "out", False, quiet)
    return folder


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value.is_floating_point():
            assert (found[name] - value).abs().max() <= 5e-5 * value.abs().max(), name
        else:
            assert torch.equal(found[name], value), name


@pytest.mark.parametrize("family", ["llama with biases", "qwen3", "gemma3", "mixtral"])
def test_all_ranks_slots_in_one_process_are_the_model(family: str, tmp_path: Path) -> None:
    applied(family, tmp_path, DIVIDED)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    trace = attach_slots(model, tmp_path / "out")
    found = ranks.computed(model)
    assert trace.share > 0
    detach(model)
    same(found, ranks.computed(ranks.loaded(tmp_path / "model")))


@pytest.mark.parametrize(
    ("family", "layers", "processes"), [("llama", DIVIDED, 2), ("qwen3", THIRDS, 3)]
)
def test_every_process_of_stock_tensor_parallelism_attends_in_its_slots(
    family: str, layers: list[Placement], processes: int, tmp_path: Path
) -> None:
    applied(family, tmp_path, layers, processes)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", ranks.__file__, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-4000:]
    expected = ranks.computed(ranks.loaded(tmp_path / "model"))
    for rank in range(processes):
        same(torch.load(tmp_path / f"{rank}.pt"), expected)


def test_a_model_without_the_maps_heads_is_refused(tmp_path: Path) -> None:
    applied("llama", tmp_path, DIVIDED)
    with pytest.raises(AttentionError, match="its map has 8 query slots, the model 6 heads"):
        attach_slots(ranks.loaded(tmp_path / "model"), tmp_path / "out")
