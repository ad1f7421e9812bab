"""Weights of another layout are written once, by `hplb apply`, while whoever asked goes on."""

import time
from pathlib import Path

import pytest

from executor.engines.vllm.written import NAME, Written, weight_bytes
from executor.errors import WeightsError
from executor.weights.apply import apply
from executor.weights.execution_map import ExecutionMap
from executor.weights.slots import slots_of
from solver.plans import Plan
from tests.engines.made import ELSEWHERE, quiet
from tests.executor.weights.models import DIVIDED, WHOLE, planned, save

PLAN, OTHER = planned(DIVIDED, slots=2), planned(WHOLE, slots=2)
PATIENCE_S = 120.0


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A model with a plan."""
    apply(save("llama", tmp_path / "model"), PLAN, tmp_path / "served", False, quiet)
    return tmp_path / "served"


def ranks(served: Path) -> list[Written]:
    layout = ExecutionMap.load(served).layout.id
    return [Written(served, layout, served.parent / "written") for _ in range(2)]


def where(rank: Written, plan: Plan, loaded: Path) -> Path:
    """Where the weights are, once they are."""
    end = time.monotonic() + PATIENCE_S
    while (found := rank.of(plan, slots_of(plan), loaded)) is None:
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def test_one_rank_writes_what_all_of_them_load(served: Path) -> None:
    first, second = ranks(served)
    assert first.of(OTHER, slots_of(OTHER), served) is None
    assert second.of(OTHER, slots_of(OTHER), served) is None
    assert second._writing is None
    place = where(second, OTHER, served)
    assert where(first, OTHER, served) == place
    assert place.name == slots_of(OTHER).id[:NAME]
    straight = served.parent / "straight"
    apply(served.parent / "model", OTHER, straight, False, quiet)
    files = {file.name: file.read_bytes() for file in straight.iterdir()}
    assert {file.name: file.read_bytes() for file in place.iterdir()} == files
    weights = [file for name, file in files.items() if name.endswith(".safetensors")]
    assert weight_bytes(place) == sum(map(len, weights))


def test_who_has_written_is_no_zombie_though_nobody_asks_again(served: Path) -> None:
    (rank, _) = ranks(served)
    assert rank.of(OTHER, slots_of(OTHER), served) is None
    assert rank._writing is not None
    process = Path("/proc") / str(rank._writing[1].pid)
    assert process.exists()
    end = time.monotonic() + PATIENCE_S
    while process.exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert rank.of(OTHER, slots_of(OTHER), served) is not None


def test_what_the_engine_began_with_is_never_written_again(served: Path) -> None:
    (rank, _) = ranks(served)
    for plan in (PLAN, planned(ELSEWHERE, slots=2)):
        assert rank.of(plan, slots_of(plan), served) == served
    assert not (served.parent / "written").exists()


def test_only_what_is_loaded_and_what_is_next_is_kept(served: Path) -> None:
    (rank, other) = ranks(served)
    mixed = [planned([WHOLE[0], DIVIDED[1]], slots=2), planned([DIVIDED[0], WHOLE[1]], slots=2)]
    first = where(rank, OTHER, served)
    second = where(other, mixed[0], first)
    third = where(rank, mixed[1], second)
    assert len({first, second, third}) == 3
    there = {each for each in (served.parent / "written").iterdir() if each.is_dir()}
    assert there == {second, third}


def test_what_cannot_be_written_is_told(served: Path) -> None:
    (rank, _) = ranks(served)
    (served / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"hplb apply: error: .*has no weight_map"):
        where(rank, OTHER, served)
    assert not list((served.parent / "written").glob("*/"))
