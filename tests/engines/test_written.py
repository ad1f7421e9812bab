"""Weights of another layout are written once, by `hplb apply`, while whoever asked goes on."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from executor.engines.vllm import metrics
from executor.engines.vllm.agreement import Agreement
from executor.engines.vllm.metrics import RankReport
from executor.engines.vllm.options import Options
from executor.engines.vllm.serving import Offer, Serving
from executor.engines.vllm.written import NAME, Written, weight_bytes
from executor.errors import WeightsError
from executor.weights.apply import apply
from executor.weights.execution_map import ExecutionMap
from executor.weights.slots import slots_of
from solver.plans import Plan
from tests.engines.made import ELSEWHERE, quiet
from tests.executor.plans import assignment
from tests.executor.weights.models import DIVIDED, WHOLE, planned, save

PLAN, OTHER = planned(DIVIDED, slots=2), planned(WHOLE, slots=2)
MIXED = [planned(layers, slots=2) for layers in ([WHOLE[0], DIVIDED[1]], [DIVIDED[0], WHOLE[1]])]
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
    while (found := rank.of(plan, slots_of(plan), lambda: {loaded})) is None:
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def test_one_rank_writes_what_all_of_them_load(served: Path) -> None:
    first, second = ranks(served)
    assert first.of(OTHER, slots_of(OTHER), set) is None
    assert second.of(OTHER, slots_of(OTHER), set) is None
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
    assert rank.of(OTHER, slots_of(OTHER), set) is None
    assert rank._writing is not None
    process = Path("/proc") / str(rank._writing[1].pid)
    assert process.exists()
    end = time.monotonic() + PATIENCE_S
    while process.exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert rank.of(OTHER, slots_of(OTHER), set) is not None


def test_what_the_engine_began_with_is_never_written_again(served: Path) -> None:
    (rank, _) = ranks(served)
    for plan in (PLAN, planned(ELSEWHERE, slots=2)):
        assert rank.of(plan, slots_of(plan), set) == served
    assert not (served.parent / "written").exists()


def test_only_what_is_loaded_and_what_is_next_is_kept(served: Path) -> None:
    (rank, other) = ranks(served)
    first = where(rank, OTHER, served)
    second = where(other, MIXED[0], first)
    third = where(rank, MIXED[1], second)
    assert len({first, second, third}) == 3
    there = {each for each in (served.parent / "written").iterdir() if each.is_dir()}
    assert there == {second, third}


def test_what_is_on_offer_or_served_stays_whatever_is_wanted_meanwhile(
    served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.setenv(metrics.FOLDER, str(served.parent / "metrics"))
    made, (written, _) = ExecutionMap.load(served), ranks(served)
    told = Options.of({"hplb_planner": "http://planner", "hplb_node": "n"})
    report, alone = RankReport(made, (1,), 0, 1, 2048), Agreement(1, None)
    rank = Serving(made, (1,), report, told, alone, served, written)

    def wants(plan: Plan, until: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not until():
            rank.wants(assignment(plan, devices=[1]))
            assert time.monotonic() < end
            time.sleep(0.1)

    def offered(plan: Plan) -> str:
        """What a plan is offered as, once it is."""
        wants(plan, lambda: plan.id in (rank.offer() or ("", False))[0])
        return cast(Offer, rank.offer())[0]

    def being_written(plan: Plan) -> None:
        """What is not needed for it is gone."""
        asked = served.parent / "written" / f"{slots_of(plan).id[:NAME]}.json"
        wants(plan, asked.exists)

    name = offered(OTHER)
    # The front end has been told, and holds the engine up.
    being_written(MIXED[0])
    assert weight_bytes(rank.offered_weights)
    assert rank.begin(name, 0.0) is None
    first = rank.weights
    name = offered(MIXED[0])
    being_written(MIXED[1])
    # Loading fails: what was served before is loaded back.
    assert weight_bytes(rank.offered_weights)
    assert weight_bytes(first)
    rank.refuse(name, "no memory")
    offered(MIXED[1])
    assert rank.weights == first
    assert weight_bytes(first)


def test_what_all_are_written_from_stays_where_others_are_written(served: Path) -> None:
    folder = served.parent / "written"
    folder.mkdir()
    source = served.rename(folder / "started")
    rank = Written(source, ExecutionMap.load(source).layout.id, folder)
    assert weight_bytes(where(rank, OTHER, served))
    assert weight_bytes(source)


def test_what_cannot_be_written_is_told(served: Path) -> None:
    (rank, _) = ranks(served)
    (served / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"hplb apply: error: .*has no weight_map"):
        where(rank, OTHER, served)
    assert not list((served.parent / "written").glob("*/"))
