"""The refine loop in the service: measure, refit, replan, move, and take up after a restart."""

import time
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.loop import refiner
from api.loop.decide import RefineState
from api.service import Service
from api.settings import Settings
from api.store.database import Database
from api.store.tables import StoredDeployment
from solver.plans import Plan
from tests.api import in_process
from tests.api.in_process import InProcess
from tests.api.slow_solver import SlowSolver
from tests.api.world import Clock, Json, World, profile

MIXED: Json = {"gpus": ..., "devices": [{"type": "h200"}, {"type": "a100"}]}


def _round(world: World, plan: Plan, view: Json, slow: tuple[float, float]) -> None:
    """Node a plays device 0, node b device 1."""
    for index, node in enumerate(("a", "b")):
        answer = world.post(world.batch(plan, view, node, [index], slow[index]))
        assert answer.status_code == 200, answer.text
    world.settle()


def _rates(world: World, device: str) -> Json:
    rates = world.client.get("/cost-models").json()["rates"]
    return next(r for r in rates if (r["device"], r["phase"]) == (device, "prefill"))


@pytest.fixture
def mixed(world: World) -> tuple[Plan, Json]:
    """A plan over two chips that turn out to be far from what the catalogue says."""
    plan = world.plan(**MIXED, profile=_large())
    world.register("a", ["h200"])
    world.register("b", ["a100"])
    return plan, world.deploy(plan, ["a", "b"])


def _large() -> Json:
    return profile("large", layers=4, heads=16)


def _heads_on(plan: Plan, device: int) -> int:
    return sum(e.device == device for layer in plan.layers for head in layer.heads for e in head)


def test_measurements_make_new_rates_in_force(world: World, mixed: tuple[Plan, Json]) -> None:
    plan, view = mixed
    before = _rates(world, "h200")
    _round(world, plan, view, (3.0, 1.0))
    after = _rates(world, "h200")
    assert after["version"] != before["version"]
    assert after["samples"] > 0
    assert after["std"] is not None
    again = world.plan(**MIXED, profile=_large())
    assert again.cost_model["h200"] == after["version"]
    assert again.id != plan.id


def test_the_loop_moves_to_the_better_plan_and_says_why(
    world: World, mixed: tuple[Plan, Json]
) -> None:
    plan, view = mixed
    # The h200 runs far slower than promised: heads belong on the a100.
    for _ in range(3):
        _round(world, plan, view, (40.0, 1.5))
        if world.view()["generation"] > 1:
            break
    moved = world.view()
    assert moved["generation"] == 2
    assert moved["plan_id"] != plan.id
    assert moved["decision"].startswith("moved")
    assert moved["history"][1]["reason"] == moved["decision"]
    assert moved["measured"] is None
    assert (world.assigned("a") or {})["generation"] == 2
    better = Plan.parse(world.client.get(f"/plans/{moved['plan_id']}").content, "plan")
    assert _heads_on(better, 0) < _heads_on(plan, 0)
    assert better.cost_model["h200"] == _rates(world, "h200")["version"]
    late = world.batch(plan, view, "a", [0])
    assert world.post(late).status_code == 409


def test_a_move_that_measures_worse_is_rolled_back(world: World, mixed: tuple[Plan, Json]) -> None:
    plan, view = mixed
    for _ in range(2):
        _round(world, plan, view, (40.0, 1.5))
    moved = world.view()
    second = Plan.parse(world.client.get(f"/plans/{moved['plan_id']}").content, "plan")
    for _ in range(2):
        _round(world, second, moved, (4000.0, 4000.0))
    back = world.view()
    assert back["generation"] == 3
    assert back["plan_id"] == plan.id
    assert back["decision"].startswith("rolled back")


def test_a_good_plan_is_held(world: World) -> None:
    plan = world.plan()
    world.register("a")
    world.register("b")
    view = world.deploy(plan, ["a", "b"])
    for _ in range(2):
        _round(world, plan, view, (1.0, 1.0))
    assert world.view()["generation"] == 1
    assert world.view()["decision"].startswith("held")


def test_without_refine_rates_learn_but_nothing_moves(world: World) -> None:
    plan = world.plan(**MIXED, profile=_large())
    world.register("a", ["h200"])
    world.register("b", ["a100"])
    view = world.deploy(plan, ["a", "b"], refine=False)
    for _ in range(3):
        _round(world, plan, view, (40.0, 1.5))
    assert _rates(world, "h200")["samples"] > 0
    assert world.view()["generation"] == 1
    assert world.view()["decision"] is None


def test_a_failing_replan_is_told_and_tried_again(
    world: World, mixed: tuple[Plan, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, view = mixed
    real = world.service.answerer.again

    def failing(*_: object) -> Plan:
        raise refiner.Problem(503, "no room")

    monkeypatch.setattr(world.service.answerer, "again", failing)
    for _ in range(2):
        _round(world, plan, view, (40.0, 1.5))
    assert world.view()["decision"] == "held: planning again failed: no room"
    monkeypatch.setattr(world.service.answerer, "again", real)
    world.clock.forward(1)
    _round(world, plan, view, (40.0, 1.5))
    assert world.view()["generation"] == 2


def test_a_long_solve_keeps_its_own_deployment_waiting_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = {**MIXED, "method": "auto", "time_limit_s": 300}
    plan = world.plan(**mixed, profile=_large())
    other = world.plan(**mixed, profile=profile("other", layers=4, heads=16))
    solver = SlowSolver()
    monkeypatch.setattr(in_process, "make_plan", solver)
    for name, nodes, its in (("d", "ab", plan), ("e", "cd", other)):
        world.register(nodes[0], ["h200"])
        world.register(nodes[1], ["a100"])
        world.deploy(its, list(nodes), name)
    for _ in range(2):
        for index, node in enumerate("ab"):
            world.post(world.batch(plan, world.view("d"), node, [index], (40.0, 1.5)[index]))
    solver.wait_for_start()
    assert solver.calls[0]["request"].time_limit_s == 60
    before = _rates(world, "h200")["version"]
    for _ in range(2):
        for index, node in enumerate("cd"):
            world.post(world.batch(other, world.view("e"), node, [index], (50.0, 1.5)[index]))
    while not _replanning(world, "e"):
        time.sleep(0.01)
    assert _replanning(world, "d")
    assert _rates(world, "h200")["version"] != before
    metrics = world.client.get("/metrics").text
    assert "hplb_refine_solves 2.0" in metrics
    solver.finish(2)
    world.settle()
    assert (world.view("d")["generation"], world.view("e")["generation"]) == (2, 2)
    assert "hplb_refine_backlog 0.0" in world.client.get("/metrics").text


def _replanning(world: World, name: str) -> bool:
    with world.service.database.read() as session:
        state = session.get_one(StoredDeployment, name).refine_state
    return RefineState.from_json(state).replanning


def test_an_error_in_one_step_does_not_end_the_loop(
    world: World, mixed: tuple[Plan, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, view = mixed
    real, calls = refiner.refit, []

    def once(*args: Any, **more: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise RuntimeError("a fault of ours")
        return real(*args, **more)

    monkeypatch.setattr(refiner, "refit", once)
    _round(world, plan, view, (2.0, 2.0))
    _round(world, plan, view, (2.0, 2.0))
    assert _rates(world, "h200")["samples"] > 0


def test_a_restart_finishes_the_replan_it_finds(
    world: World, mixed: tuple[Plan, Json], settings: Settings, clock: Clock
) -> None:
    plan, view = mixed
    world.service.refiner.stop()  # batches are stored, nobody looks at them: as after a kill
    for _ in range(2):
        for index, node in enumerate(("a", "b")):
            world.post(world.batch(plan, view, node, [index], 40.0))
    with world.service.database.write() as session:
        row = session.get_one(StoredDeployment, "d")
        state = RefineState.from_json(row.refine_state)
        row.refine_state = RefineState(
            generation=state.generation, plan_id=state.plan_id, replanning=True
        ).to_json()

    world.service.elected.stop()
    world.service.elected.join(30)
    reopened = Service.make(settings, Database.open(settings.database_url), clock, InProcess)
    with TestClient(create_app(service=reopened), "http://127.0.0.1") as client:
        assert reopened.refiner.settle(30)
        after = client.get("/deployments/d").json()
    assert after["decision"] is not None
    with Database.open(settings.database_url).read() as session:
        assert not RefineState.from_json(
            session.get_one(StoredDeployment, "d").refine_state
        ).replanning


def test_a_loop_that_would_swing_comes_to_rest(world: World, mixed: tuple[Plan, Json]) -> None:
    """Whichever device has more to do measures slow: each plan makes the other look better."""
    plan, view = mixed
    moves = []
    for _ in range(40):
        most = int(np.argmax([_heads_on(plan, device) for device in range(2)]))
        slow = (9.0, 2.0) if most == 0 else (2.0, 9.0)
        _round(world, plan, view, slow)
        world.clock.forward(60)
        before, view = view["generation"], world.view()
        moves.append(view["generation"] != before)
        plan = Plan.parse(world.client.get(f"/plans/{view['plan_id']}").content, "plan")
    assert sum(moves) >= 3
    assert not any(moves[-10:])
