"""Real processes, one a rank, carry plans out: in slots of applied checkpoints, and without padding
on ordinary ones, where each reads the rows of its own heads and no others.

Covering budgets are dense attention. Within sparse ones a decoding list serves the heads of a KV
group that are on a rank: decodes are compared where groups are whole, prompts everywhere.
"""

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.utils.logging import disable_progress_bar

from executor.engines.transformers.launch import as_ranks
from executor.engines.transformers.parts import load_held
from executor.errors import AttentionError, WeightsError
from executor.weights.apply import apply
from solver.plans import Plan
from tests.executor.engines.transformers import ranks
from tests.executor.engines.transformers.test_slots import covering, same, sparse
from tests.executor.plans import Placement, whole
from tests.executor.weights.models import DIVIDED, SHAPE, WHOLE, planned, save, save_with_pictures
from tests.executor.weights.test_families import quiet
from tests.forked import forked

THIRDS: list[Placement] = [
    [*[[(0, 0.2), (2, 0.8)]] * 2, [(0, 1.0)], [(0, 0.5), (1, 0.5)], *[[(1, 1.0)]] * 2],
    whole(2, 2, 0, 0, 0, 0),
]
"""Three devices, of which one has nothing in the second layer."""


@dataclass(frozen=True)
class Case:
    """A plan of so many devices on a model of a family: in slots, or without padding."""

    family: str
    layers: list[Placement]
    devices: int
    slots: int | None = None
    sparse: bool = False

    @property
    def name(self) -> str:
        how = "slots" if self.slots else "no slots"
        budgets = "sparse" if self.sparse else "covering"
        kind = "whole" if self.layers is WHOLE else "divided"
        return f"{self.family}, {kind}, {how}, {budgets}, {self.devices}"

    @property
    def plan(self) -> Plan:
        made = planned(self.layers, self.slots, self.devices)
        return made if self.sparse else covering(made)

    @property
    def computes(self) -> str:
        return "chunks" if self.sparse and self.layers is not WHOLE else "computed"

    def write(self, folder: Path) -> None:
        save(self.family, folder / "model")
        (folder / "computes").write_text(self.computes)
        if self.slots is None:
            self.plan.save(folder / "plan.json")
        else:
            apply(folder / "model", self.plan, folder / "applied", False, quiet)


CASES = [
    Case("llama", DIVIDED, 2, slots=2),
    Case("llama", DIVIDED, 2, slots=2, sparse=True),
    Case("llama with biases", DIVIDED, 2),
    Case("llama with biases", DIVIDED, 2, sparse=True),
    Case("qwen3", WHOLE, 2, sparse=True),
    Case("gemma3", DIVIDED, 2),
    Case("phi3", DIVIDED, 2),
    Case("gpt_oss", DIVIDED, 2),
    Case("qwen3", THIRDS, 3, slots=2),
    Case("qwen3", THIRDS, 3),
    Case("qwen3", THIRDS, 3, sparse=True),
]
REFUSED = Case("phi3", DIVIDED, 2, slots=2)
UNPADDED = [case for case in CASES if case.slots is None]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case's folder, by its name, with what its ranks found."""
    forked()
    folder = tmp_path_factory.mktemp("ranks")
    disable_progress_bar()
    for devices in sorted({case.devices for case in CASES}):
        for case in (case for case in [*CASES, REFUSED] if case.devices == devices):
            case.write(folder / str(devices) / case.name)
        module = ranks.__name__
        as_ranks(module, devices, [str(folder / str(devices))], "ranks")
    return folder


def found(ran: Path, case: Case) -> Iterator[Any]:
    """What every rank computed, its parameters' shapes, and the bytes that it read of tensors; or
    why it did not."""
    for rank in range(case.devices):
        yield torch.load(ran / str(case.devices) / case.name / f"{rank}.pt")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_rank_has_the_models_logits_and_tokens(ran: Path, case: Case) -> None:
    folder = ran / str(case.devices) / case.name
    computes = getattr(ranks, case.computes)
    if case.sparse:
        expected = sparse(folder, case.plan, computes)
    else:
        expected = computes(ranks.loaded(folder / "model"))
    for computed, _, _ in found(ran, case):
        same(computed, expected)


@pytest.mark.parametrize("case", UNPADDED, ids=lambda case: case.name)
def test_a_rank_reads_and_holds_its_heads_alone(ran: Path, case: Case) -> None:
    for rank, (_, shapes, read) in enumerate(found(ran, case)):
        for layer, heads in enumerate(case.layers):
            mine = [head for head, parts in enumerate(heads) if rank in dict(parts)]
            groups = {SHAPE.kv_head(head) for head in mine}
            rows = {"q": 16 * len(mine), "k": 16 * len(groups), "v": 16 * len(groups)}
            rows |= {"qkv": sum(rows.values()), "o": rows["q"]}
            for name, count in rows.items():
                tensor = f"model.layers.{layer}.self_attn.{name}_proj.weight"
                if tensor in shapes:
                    assert read[tensor] == 4 * count * SHAPE.hidden_size
                    # Of no head at all a rank holds one of zeros.
                    held = count or (16 if name != "qkv" else 48)
                    assert sorted(shapes[tensor]) == sorted((held, SHAPE.hidden_size))


@pytest.mark.parametrize("devices", [2, 3])
def test_a_rank_keeps_the_memory_of_tensors_that_it_freed(ran: Path, devices: int) -> None:
    pages = ranks.TENSORS * ranks.TENSOR_BYTES // resource.getpagesize()
    for rank in range(devices):
        assert int((ran / f"{devices}.{rank}").read_text()) < pages / ranks.TENSORS


def test_slots_of_attention_that_stock_parallelism_leaves_whole_are_refused(ran: Path) -> None:
    for said in found(ran, REFUSED):
        assert "has all heads of Phi3ForCausalLM on every rank: a plan without --slots" in said


def test_a_model_of_text_and_images_is_refused(tmp_path: Path) -> None:
    folder = save_with_pictures(tmp_path / "model")
    with pytest.raises(AttentionError, match="model: has other parts than text"):
        load_held(folder, planned(DIVIDED, slots=None))


def test_a_model_with_a_plan_in_it_takes_no_other(tmp_path: Path) -> None:
    folder = save("llama", tmp_path / "model")
    apply(folder, planned(DIVIDED, slots=2), tmp_path / "out", False, quiet)
    with pytest.raises(WeightsError, match="carries a plan already"):
        load_held(tmp_path / "out", planned(DIVIDED, slots=None))
