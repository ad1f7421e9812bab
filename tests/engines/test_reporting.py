"""Timed steps reach the planner, whenever it is there, and never keep who serves."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_ident

import pytest
import torch

from api.client.bodies import NodeRegistration
from api.client.planner_client import PlannerClient
from executor.engines.vllm import metrics, reporting
from executor.engines.vllm.metrics import RankReport
from executor.engines.vllm.reporting import Reporter
from executor.engines.vllm.timing import SampledStep
from executor.inference.slot_steps import SlotSteps
from executor.reports.membership import Membership
from executor.reports.spool import Spool
from executor.reports.state import NodeState
from executor.weights.execution_map import ExecutionMap, Original
from executor.weights.slots import slots_of
from tests.executor.fake_planner import FakePlanner
from tests.executor.plans import assignment
from tests.executor.weights.models import DIVIDED, planned

PLAN = planned(DIVIDED, slots=2)
MADE = ExecutionMap.of(PLAN, slots_of(PLAN), original=Original(tensors_sha256="", files={}))
STEPS = SlotSteps(MADE, (1,), 2048, torch.device("cpu"), range(2))
PATIENCE_S = 60.0


class Rank:
    """Rank 1 of an engine, whose node is `n`."""

    def __init__(self, planner: FakePlanner, folder: Path, limit: int = 1000) -> None:
        node = NodeRegistration(node_id="n", boot_id="b", devices=["cpu"], backend="torch")
        self.state, self.spool = NodeState(folder / "state"), Spool(folder / "spool", limit)
        client = PlannerClient(planner.url)
        self.member = Membership(node, client, self.state, self.spool, lambda _: None, lambda: None)
        self.report = RankReport(MADE, (1,), 0, 1, 2048)
        self.wanted: list[str] = []
        wants = lambda wanted: self.wanted.append(wanted.plan_id)  # noqa: E731
        self.reporter = Reporter(self.report, self.member, wants, "run")

    def serve(self, numbers: range, made: ExecutionMap = MADE) -> None:
        """Steps of a prompt's chunk beside two decodes, both layers timed."""
        batch = STEPS.of_batch([64, 200, 90], [128, 201, 91])
        for number in numbers:
            step = SampledStep(number, made, (1,), batch, STEPS.groups, torch.device("cpu"), 0)
            for layer in range(2):
                for phase in range(2):
                    step.end(layer, phase, step.begin())
            self.reporter.timed(step)

    def told(self, name: str) -> float:
        found = {
            family.name: sample.value
            for family in metrics._Ranks().collect()
            for sample in family.samples
        }
        return found[name]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def planner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePlanner]:
    """One that does not answer yet."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.setenv(metrics.FOLDER, str(tmp_path / "metrics"))
    monkeypatch.setattr(reporting, "LOOK_S", 0.05)
    planner = FakePlanner().reserve()
    yield planner
    planner.stop()


def numbers(planner: FakePlanner) -> list[int]:
    return [s["number"] for sent in planner.batches for s in sent["steps"][::2]]


def test_nothing_is_lost_while_the_planner_is_away(planner: FakePlanner, tmp_path: Path) -> None:
    rank = Rank(planner, tmp_path)
    wanted = assignment(PLAN, devices=[1])
    rank.state.save(wanted)
    rank.reporter.start()
    rank.serve(range(200))
    # Served long before anything is told: 64 steps are a batch.
    until(lambda: len(rank.spool) == 3)
    until(lambda: rank.told("hplb_spooled_batches") == 3)
    assert not planner.batches
    planner.wanted = wanted
    planner.start()
    until(lambda: len(planner.batches) == 4)
    assert numbers(planner) == list(range(200))
    until(lambda: rank.told("hplb_spooled_batches") == 0)
    assert rank.told("hplb_dropped_steps") == 0
    assert rank.told("hplb_sampled_steps") == 200
    for sent in planner.batches:
        assert (sent["deployment"], sent["generation"], sent["node_id"]) == ("prod", 1, "n")
        assert (sent["timing"], sent["run"]) == ("concurrent", "run")
        kinds = [(s["phase"], s["sequences"], s["new_tokens"]) for s in sent["steps"][:2]]
        assert kinds == [("decode", 2, 2), ("prefill", 1, 64)]
        assert sent["steps"][0]["context_tokens"] == 201
        assert sent["steps"][1]["mean_tokens"] == 64 + 128
        assert {sample["device"] for sample in sent["samples"]} == {1}
        assert {sample["step"] for sample in sent["samples"]} == set(range(len(sent["steps"])))
        assert all(sample["work"]["launches"] == 1 for sample in sent["samples"])


def test_a_spool_that_is_full_drops_the_oldest_and_says_so(
    planner: FakePlanner, tmp_path: Path
) -> None:
    rank = Rank(planner, tmp_path, limit=2)
    rank.state.save(assignment(PLAN, devices=[1]))
    rank.reporter.start()
    rank.serve(range(5 * 64))
    until(lambda: rank.told("hplb_dropped_steps") == 3 * 64)
    planner.wanted = assignment(PLAN, devices=[1])
    planner.start()
    until(lambda: len(rank.spool) == 0)
    # One that was being sent when it was dropped may have arrived.
    assert numbers(planner)[-2 * 64 :] == list(range(3 * 64, 5 * 64))
    assert len(planner.batches) <= 3


def test_steps_wait_for_the_generation_that_their_plan_is(
    planner: FakePlanner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "MOST_WAITING", 100)
    rank = Rank(planner, tmp_path)
    rank.reporter.start()
    rank.serve(range(128))
    until(lambda: rank.told("hplb_dropped_steps") == 28)
    planner.wanted = assignment(PLAN, devices=[1])
    planner.start()
    until(lambda: planner.batches)
    assert numbers(planner) == list(range(28, 128))
    assert set(rank.wanted) == {PLAN.id}
    # Steps of another plan are of no generation that there is.
    other = MADE.model_copy(update={"plan": "other"})
    rank.serve(range(200, 264), other)
    rank.serve(range(300, 364))
    until(lambda: numbers(planner)[-1] == 363)
    assert numbers(planner)[100:] == list(range(300, 364))


def test_steps_that_nobody_has_time_to_count_do_not_pile_up(
    planner: FakePlanner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "MOST_QUEUED", 4)
    rank = Rank(planner, tmp_path)
    rank.serve(range(7))
    assert rank.told("hplb_overrun_steps") == 3
    rank.reporter.start()
    until(lambda: rank.told("hplb_sampled_steps") == 4)
    assert rank.told("hplb_overrun_steps") == 3


def test_without_a_planner_metrics_are_all_that_is_told(
    planner: FakePlanner, tmp_path: Path
) -> None:
    rank = Rank(planner, tmp_path)
    reporter = Reporter(rank.report, None, lambda _: None, "run")
    rank.reporter = reporter
    reporter.start()
    rank.serve(range(3))
    until(lambda: rank.told("hplb_sampled_steps") == 3)
    assert rank.told("hplb_attention_seconds") >= 0
    assert len(rank.spool) == 0


def test_a_step_that_is_not_sampled_looks_at_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """What measuring costs is counted: four looks at a clock for each layer and phase timed."""
    looks: list[int] = []
    for name in ("thread_time", "perf_counter"):
        clock = getattr(time, name)
        # Threads of other tests may still be at work.
        monkeypatch.setattr(time, name, lambda clock=clock: looks.append(get_ident()) or clock())
    batch = STEPS.of_batch([64, 200], [128, 201])
    assert get_ident() not in looks
    step = SampledStep(1, MADE, (1,), batch, STEPS.groups, torch.device("cpu"), 0)
    step.end(0, 0, step.begin())
    assert looks.count(get_ident()) == 4
