"""Real `hplb executor` processes against a small planner on a real socket."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.client.bodies import Assignment
from executor.reports.spool import Spool, Spooled
from executor.reports.state import NodeState
from tests.executor.fake_planner import FakePlanner
from tests.executor.plans import assignment, tiny_plan
from tests.executor.reports.test_spool import batch
from tests.forked import Forked

pytestmark = pytest.mark.slow
PATIENCE_S = 60.0
ENDLESS = 100_000


class Node:
    """Starts executors with one state directory."""

    def __init__(self, planner: FakePlanner, folder: Path) -> None:
        self.planner, self.state, self.log = planner, folder / "state", folder / "log"
        self.locks = folder / "locks"
        self.locks.mkdir()
        self.processes: list[Forked] = []

    def start(self, *options: str, devices: int = 2) -> Forked:
        arguments = ["executor", "--server", self.planner.url, "--node-id", "n"]
        arguments += ["--devices", str(devices)]
        arguments += ["--device-type", "cpu", "--state-dir", str(self.state), *options]
        with self.log.open("ab") as log:
            process = Forked(
                arguments,
                folder=Path.cwd(),
                environment=os.environ | {"TMPDIR": str(self.locks)},
                stderr=log.fileno(),
            )
        self.processes.append(process)
        return process

    @property
    def said(self) -> str:
        return self.log.read_text()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, self.said
            time.sleep(0.02)


@pytest.fixture
def planner() -> Iterator[FakePlanner]:
    planner = FakePlanner().start()
    yield planner
    planner.stop()


@pytest.fixture
def node(planner: FakePlanner, tmp_path: Path) -> Iterator[Node]:
    node = Node(planner, tmp_path)
    yield node
    for process in node.processes:
        process.kill()
        process.wait()


def kill(process: Forked) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def stop(process: Forked) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(PATIENCE_S)


def active(wanted: Assignment) -> dict[str, object]:
    return wanted.active.model_dump()


def test_register_measure_report_and_stop(planner: FakePlanner, node: Node) -> None:
    planner.wanted = assignment(rounds=2)
    process = node.start()
    node.until(lambda: len(planner.batches) == 2)
    node.until(lambda: active(assignment()) in planner.actives)
    assert "calibrates a node without an engine" in node.said.splitlines()[0]
    for sent in planner.batches:
        assert (sent["deployment"], sent["generation"], sent["node_id"]) == ("prod", 1, "n")
        assert sent["timing"] == "alone"
        assert [(s["layer"], s["device"]) for s in sent["samples"]] == [
            (0, 0),
            (0, 1),
            (1, 0),
            (1, 1),
        ]
    assert planner.registrations[0]["devices"] == ["cpu", "cpu"]
    assert planner.registrations[0]["backend"] == "torch"
    assert stop(process) == 0
    assert "round 2/2 done" in node.said
    assert "stopped" in node.said


def test_rounds_go_on_until_another_generation(planner: FakePlanner, node: Node) -> None:
    planner.wanted = assignment(rounds=1, every_s=0.05)
    process = node.start()
    node.until(lambda: len(planner.batches) >= 4)
    planner.wanted = assignment(generation=2, rounds=1)
    node.until(lambda: planner.batches[-1]["generation"] == 2)
    sent = len(planner.batches)
    time.sleep(0.5)
    assert len(planner.batches) == sent
    assert stop(process) == 0


def test_once_is_over_after_the_rounds(planner: FakePlanner, node: Node) -> None:
    planner.wanted = assignment(rounds=2, every_s=0.05)
    assert node.start("--once").wait(PATIENCE_S) == 0
    assert len(planner.batches) == 2


def test_a_restarted_node_goes_on_measuring(planner: FakePlanner, node: Node) -> None:
    planner.wanted = assignment(rounds=1, every_s=0.05)
    kill_after = node.start()
    node.until(lambda: len(planner.batches) >= 3)
    kill(kill_after)
    before = len(planner.batches)
    node.start()
    node.until(lambda: len(planner.batches) >= before + 2)
    assert "all rounds are measured already" in node.said


def test_local_devices_play_the_plans(planner: FakePlanner, node: Node) -> None:
    planner.wanted = assignment(devices=[1], layers=[1], rounds=1)
    assert node.start("--once", devices=1).wait(PATIENCE_S) == 0
    ((sample,),) = [sent["samples"] for sent in planner.batches]
    assert (sample["layer"], sample["device"]) == (1, 1)


def test_it_waits_for_a_planner_that_is_not_there_yet(planner: FakePlanner, node: Node) -> None:
    planner.stop()
    planner.wanted = assignment(rounds=1)
    node.start()
    node.until(lambda: "planner away" in node.said)
    time.sleep(1)
    planner.start()
    node.until(lambda: planner.batches)
    assert node.said.count("planner away, trying on") == 1
    assert node.said.count("planner away: over") == 1


def test_a_planner_that_lost_everything_gets_it_again(planner: FakePlanner, node: Node) -> None:
    planner.wanted = assignment(rounds=1)
    node.start()
    node.until(lambda: planner.batches)
    planner.stop()
    planner.nodes.clear()
    planner.start()
    node.until(lambda: len(planner.registrations) == 2)
    first, second = planner.registrations
    assert first == second
    planner.leases.clear()
    node.until(lambda: active(assignment()) in planner.actives)
    node.until(lambda: len(planner.batches) == 2)


def test_a_new_generation_interrupts_the_old(planner: FakePlanner, node: Node) -> None:
    planner.wanted = assignment(rounds=ENDLESS)
    node.start()
    node.until(lambda: len(planner.batches) > 2)
    planner.wanted = assignment(generation=2, rounds=1)
    node.until(lambda: planner.batches[-1]["generation"] == 2)
    assert [sent["generation"] for sent in planner.batches].count(2) == 1
    node.until(lambda: active(assignment(generation=2)) in planner.actives)


def test_kill_and_restart_goes_on_without_the_planner(planner: FakePlanner, node: Node) -> None:
    planner.wanted = assignment(rounds=ENDLESS)
    process = node.start()
    node.until(lambda: active(assignment()) in planner.actives and planner.batches)
    kill(process)
    planner.stop()
    before = len(planner.batches)
    checkpoint = NodeState(node.state)
    assert checkpoint.load() == planner.wanted
    checkpoint.close()
    node.start()
    node.until(lambda: "resuming from the checkpoint" in node.said)
    node.until(lambda: len(list((node.state / "spool").glob("*.json"))) > 3)
    assert len(planner.batches) == before
    planner.start()
    node.until(lambda: len(planner.batches) > before + 3)


def test_what_was_measured_is_not_measured_again(planner: FakePlanner, node: Node) -> None:
    planner.wanted = assignment(rounds=3)
    process = node.start()
    node.until(lambda: len(planner.batches) == 3)
    node.until(lambda: not list((node.state / "spool").glob("*.json")))
    kill(process)
    node.start()
    node.until(lambda: "all rounds are measured already" in node.said)
    node.until(lambda: len(planner.registrations) == 2 and active(assignment()) in planner.actives)
    assert node.start("--once").wait(PATIENCE_S) == 2
    assert "another executor is using it" in node.said
    assert len(planner.batches) == 3


def test_superseded_measurements_are_dropped(planner: FakePlanner, node: Node) -> None:
    planner.verdict = (409, {"detail": "generation 2 is live"})
    planner.wanted = assignment(rounds=2)
    node.start()
    node.until(lambda: node.said.count("a newer generation is live") == 2)
    node.until(lambda: not list((node.state / "spool").glob("*.json")))
    assert planner.batches == []


def test_refused_measurements_do_not_block_the_rest(planner: FakePlanner, node: Node) -> None:
    node.state.mkdir()
    Spool(node.state / "spool").add(batch(), 1)
    planner.verdict = (404, {"detail": "no deployment prod"})
    node.start()
    node.until(lambda: "404 no deployment prod" in node.said)
    planner.verdict = None
    planner.wanted = assignment(rounds=1)
    node.until(lambda: planner.batches)


def test_a_failing_planner_gets_them_later_and_in_order(planner: FakePlanner, node: Node) -> None:
    planner.verdict = (503, {"detail": "database away"})
    planner.wanted = assignment(rounds=3)
    node.start()
    node.until(lambda: "measurements not accepted, trying on" in node.said)
    node.until(lambda: len(list((node.state / "spool").glob("*.json"))) == 3)
    waiting = [
        Spooled.model_validate_json(file.read_bytes()).batch.batch_id
        for file in sorted((node.state / "spool").glob("*.json"))
    ]
    planner.verdict = None
    node.until(lambda: len(planner.batches) == 3)
    assert [sent["batch_id"] for sent in planner.batches] == waiting
    assert node.said.count("measurements not accepted, trying on") == 1


def test_corrupt_state_is_set_aside(planner: FakePlanner, node: Node) -> None:
    (node.state / "spool").mkdir(parents=True)
    (node.state / "assignment.json").write_text('{"deployment": "pr')
    (node.state / "progress.json").write_text("?")
    (node.state / "spool" / "000000000001.json").write_text("")
    planner.nodes["n"] = {"node_id": "n"}
    planner.wanted = assignment(rounds=1)
    assert node.start("--once").wait(PATIENCE_S) == 0
    assert node.said.count("corrupt file set aside") == 3
    assert len(planner.batches) == 1


HALF_A_HEAD = tiny_plan([[(0, 0.5)], [(0, 1.0)]])


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (assignment(HALF_A_HEAD), "shares add to 0.5"),
        (assignment(tiny_plan(budgets=[0, 64, 64, 64])), "budget_tokens: 0 must be"),
    ],
    ids=["refused", "failed"],
)
def test_what_cannot_run_is_said_in_the_lease(
    planner: FakePlanner, node: Node, wanted: Assignment, reason: str
) -> None:
    planner.wanted = wanted
    process = node.start()
    node.until(lambda: any(reason in (error or "") for error in planner.errors))
    planner.leases.clear()
    planner.wanted = assignment(generation=2, rounds=1)
    node.until(lambda: planner.batches)
    node.until(lambda: planner.leases and planner.errors[-1] is None)
    assert process.poll() is None


def test_once_with_nothing_it_can_run_is_an_error(planner: FakePlanner, node: Node) -> None:
    planner.wanted = assignment(HALF_A_HEAD)
    assert node.start("--once").wait(PATIENCE_S) == 2
    assert "error: prod 1: layer 0, head 0: shares add to 0.5" in node.said


def test_another_process_with_the_name_ends_it(planner: FakePlanner, node: Node) -> None:
    process = node.start()
    node.until(lambda: planner.leases)
    planner.nodes["n"] = planner.nodes["n"] | {"boot_id": "another"}
    assert process.wait(PATIENCE_S) == 2
    assert "409 another process holds n" in node.said
