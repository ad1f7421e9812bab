"""`/nodes`: registration, leases, and the long poll."""

import time
from threading import Thread
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.world import World, fields


def _node(world: World, name: str = "a") -> dict[str, Any]:
    nodes: list[dict[str, Any]] = world.client.get("/nodes").json()["nodes"]
    return next(node for node in nodes if node["node_id"] == name)


def test_a_node_is_live_while_its_lease_runs(world: World) -> None:
    world.register("a")
    assert _node(world)["live"] is True
    world.clock.forward(9)
    renewal = {"boot_id": "boot", "active": {"deployment": "d", "generation": 3}, "error": "hot"}
    assert world.client.put("/nodes/a/lease", json=renewal).json()["lease_s"] == 10
    world.clock.forward(9)
    node = _node(world)
    assert node["live"] is True
    assert node["active"] == {"deployment": "d", "generation": 3}
    assert node["error"] == "hot"
    world.clock.forward(2)
    assert _node(world)["live"] is False


def test_nodes_come_in_pages_by_name(world: World) -> None:
    for name in ("c", "a", "b"):
        world.register(name)
    page = world.client.get("/nodes", params={"limit": 2, "offset": 1}).json()
    assert ([node["node_id"] for node in page["nodes"]], page["total"]) == (["b", "c"], 3)
    assert fields(world.client.get("/nodes", params={"limit": 501})).keys() == {"limit"}


def test_the_newest_process_holds_the_name(world: World) -> None:
    world.register("a", boot="first")
    world.register("a", boot="second")
    fields(world.client.put("/nodes/a/lease", json={"boot_id": "first"}), 409)
    assert world.client.put("/nodes/a/lease", json={"boot_id": "second"}).status_code == 200


def test_an_unknown_node_is_told_to_register(client: TestClient) -> None:
    fields(client.put("/nodes/a/lease", json={"boot_id": "b"}), 404)
    fields(client.get("/nodes/a/assignment?wait_s=0"), 404)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"node_id": "a b"}, "node_id"),
        ({"node_id": "x" * 200}, "node_id"),
        ({"boot_id": ""}, "boot_id"),
        ({"devices": []}, "devices"),
        ({"devices": ["h200", "tpu"]}, "devices.1"),
        ({"backend": "a\x00b"}, "backend"),
        ({"versions": {"torch": 2}}, "versions.torch"),
        ({"memory": 1}, "memory"),
    ],
)
def test_a_bad_registration_is_refused(
    client: TestClient, change: dict[str, Any], field: str
) -> None:
    body = {"node_id": "a", "boot_id": "b", "devices": ["cpu"], "backend": "torch", **change}
    assert field in fields(client.post("/nodes", json=body))
    assert client.get("/nodes").json() == {"nodes": [], "total": 0}


def test_the_assignment_says_which_devices_of_the_plan_to_play(world: World) -> None:
    plan = world.plan(gpus=3)
    world.register("a", 2)
    world.register("b", 1)
    assert world.assigned("a") is None
    world.deploy(plan, ["b", "a"], layers=[2, 0], rounds=5)
    found = world.assigned("a")
    assert found is not None
    assert found["plan"]["id"] == found["plan_id"] == plan.id
    assert (found["deployment"], found["generation"]) == ("d", 1)
    assert (found["devices"], found["layers"], found["rounds"]) == ([1, 2], [0, 2], 5)
    other = world.assigned("b")
    assert other is not None
    assert other["devices"] == [0]
    assert world.assigned("a", deployment="d", generation=1) is None
    assert world.assigned("a", deployment="d", generation=0) is not None
    assert world.assigned("a", deployment="e", generation=1) is not None


def test_a_long_poll_ends_with_the_change_it_waits_for(world: World) -> None:
    plan = world.plan(gpus=1)
    world.register("a")
    answers: list[Any] = []

    def poll() -> None:
        answers.append(world.client.get("/nodes/a/assignment?wait_s=50"))

    waiting = Thread(target=poll)
    waiting.start()
    time.sleep(0.1)
    assert not answers
    world.deploy(plan, ["a"])
    waiting.join(30)
    assert answers[0].json()["plan_id"] == plan.id


def test_a_long_poll_ends_when_the_service_stops(world: World) -> None:
    world.register("a")
    answers: list[int] = []

    def poll() -> None:
        answers.append(world.client.get("/nodes/a/assignment?wait_s=50").status_code)

    waiting = Thread(target=poll)
    waiting.start()
    time.sleep(0.1)
    world.service.stop()
    waiting.join(30)
    assert answers == [204]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("wait_s=61", "wait_s"),
        ("wait_s=-1", "wait_s"),
        ("wait_s=nan", "wait_s"),
        ("wait_s=0&generation=-1", "generation"),
        ("wait_s=0&deployment=a%20b", "deployment"),
    ],
)
def test_a_bad_query_is_refused(world: World, query: str, field: str) -> None:
    world.register("a")
    assert field in fields(world.client.get(f"/nodes/a/assignment?{query}"))


def test_a_node_that_comes_back_with_other_devices_leaves_its_deployment(world: World) -> None:
    plan = world.plan(gpus=2)
    world.register("a", 2)
    world.deploy(plan, ["a"])
    world.register("a", 2, boot="again")
    assert world.assigned("a") is not None
    world.register("a", 1, boot="third")
    assert world.assigned("a") is None
    assert "other devices" in world.view()["decision"]
    world.register("a", 2, boot="fourth")
    assert world.assigned("a") is None
    assert world.deploy(plan, ["a"])["generation"] == 2
    assert world.assigned("a") is not None


def test_a_share_of_a_gpu_is_a_device_type_from_plan_to_deployment(world: World) -> None:
    plan = world.plan(gpus=2, device_type="h200@0.5")
    world.register("half", ["h200@0.5"] * 2)
    assert world.deploy(plan, ["half"])["nodes"]
    body = {"node_id": "n", "boot_id": "b", "devices": ["h200@2"], "backend": "none"}
    refused = world.client.post("/nodes", json=body)
    assert refused.status_code == 422
    assert "h200@0.5" in refused.text
