"""Every family: a plan written into its weights computes what the model does, and comes out."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from executor.errors import WeightsError
from executor.weights.apply import apply, undo
from executor.weights.check import compare
from executor.weights.checkpoint import CONFIG
from executor.weights.execution_map import LAYOUT_FIELD, MAP_FILE, ExecutionMap
from profiles.files import read_json
from tests.executor.weights.models import (
    DIVIDED,
    FAMILIES,
    WHOLE,
    planned,
    save,
    save_with_packed_experts,
    save_with_pictures,
)

PICTURES, PACKED = "gemma3 with pictures", "gpt_oss with experts in MXFP4"


def quiet(*_: object) -> None:
    """Progress that nobody wants to see."""


@pytest.fixture(scope="module", params=[*FAMILIES, PICTURES, PACKED])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family") / "model"
    if request.param == PICTURES:
        return save_with_pictures(folder)
    if request.param == PACKED:
        return save_with_packed_experts(folder)
    return save(request.param, folder)


@torch.no_grad()
def logits(folder: Path) -> torch.Tensor:
    """Of a prompt, by the stock model."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.randint(1, 89, (2, 100), generator=torch.Generator().manual_seed(1))
    return model(ids).logits


def test_whole_groups_in_padded_slots_are_the_model_on_a_stock_engine(
    model: Path, tmp_path: Path
) -> None:
    made = apply(model, planned(WHOLE, slots=2), tmp_path / "out", False, quiet).map
    assert not made.layout.needs_map
    assert made.layout.groups(0) == [0, 2, 1, None]
    assert made.layout.groups(1) == [2, None, 0, 1]
    expected, found = logits(model), logits(tmp_path / "out")
    assert (found - expected).abs().max() <= 5e-5 * expected.abs().max()


def test_divided_heads_are_the_model_where_each_rank_keeps_to_its_rows(
    model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    applied = apply(model, planned(DIVIDED, slots=2), out, True, quiet)
    assert applied.map.layout.needs_map
    assert read_json(out / CONFIG)[LAYOUT_FIELD] == applied.map.layout.id
    assert applied.compared is not None
    assert applied.compared.decoded_tokens == 8
    # With every row on every rank that holds the group, the parts would be added twice.
    slots = [
        [[s.model_dump() for s in rank] for rank in layer] for layer in applied.map.layout.layers
    ]
    for slot in (slot for layer in slots for rank in layer for slot in rank):
        slot["rows"] = [(0.0, 1.0)] * 2
    layout = type(applied.map.layout)(slot_heads=2, layers=slots)
    with pytest.raises(WeightsError, match="the largest difference of logits"):
        compare(model, None, out, applied.map.model_copy(update={"layout": layout}))


def test_moved_to_another_plan_it_is_what_that_plan_writes(model: Path, tmp_path: Path) -> None:
    apply(model, planned(DIVIDED, slots=2), tmp_path / "first", False, quiet)
    moved = apply(tmp_path / "first", planned(WHOLE, slots=3), tmp_path / "moved", True, quiet)
    apply(model, planned(WHOLE, slots=3), tmp_path / "straight", False, quiet)
    assert moved.compared is not None
    files = {file.name: file.read_bytes() for file in (tmp_path / "straight").iterdir()}
    assert {file.name: file.read_bytes() for file in (tmp_path / "moved").iterdir()} == files
    undo(tmp_path / "moved", tmp_path / "back", quiet)
    for file in model.iterdir():
        assert (tmp_path / "back" / file.name).read_bytes() == file.read_bytes()


def test_undone_it_is_the_model_again_byte_for_byte(model: Path, tmp_path: Path) -> None:
    made = apply(model, planned(DIVIDED, slots=2), tmp_path / "out", False, quiet).map
    assert ExecutionMap.load(tmp_path / "out") == made
    undo(tmp_path / "out", tmp_path / "back", quiet)
    assert not (tmp_path / "back" / MAP_FILE).exists()
    files = {file.name: file.read_bytes() for file in model.iterdir()}
    assert {file.name: file.read_bytes() for file in (tmp_path / "back").iterdir()} == files
    assert sum(name.endswith(".safetensors") for name in files) > 1
