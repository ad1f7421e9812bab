"""`/deployments`: generations, and what cannot be made live."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.world import World, fields


def test_every_change_is_a_new_generation_and_an_equal_put_is_none(world: World) -> None:
    one, two = world.plan(), world.plan(method="snake")
    world.register("a", 2)
    assert world.deploy(one, ["a"])["generation"] == 1
    assert world.deploy(one, ["a"])["generation"] == 1
    assert world.deploy(one, ["a"], layers=[0, 1, 2])["generation"] == 1
    assert world.deploy(two, ["a"])["generation"] == 2
    assert world.deploy(two, ["a"], rounds=4)["generation"] == 3
    assert world.deploy(two, ["a"], rounds=4, layers=[1])["generation"] == 4
    view = world.deploy(two, ["a"], rounds=4, layers=[1], refine=False)
    assert view["generation"] == 5
    assert [entry["generation"] for entry in view["history"]] == [1, 2, 3, 4, 5]
    assert [entry["plan_id"] for entry in view["history"]] == [one.id] + [two.id] * 4
    assert all(entry["reason"] and entry["at"] for entry in view["history"])


def test_the_view_predicts_the_layers_that_are_run(world: World) -> None:
    plan = world.plan()
    world.register("a", 2)
    view = world.deploy(plan, ["a"], layers=[2])
    assert view["predicted"]["makespan_s"] == pytest.approx(plan.layers[2].makespan_s)
    loads = plan.layers[2].loads_s
    assert view["predicted"]["bubble_ratio"] == pytest.approx(1 - sum(loads) / (2 * max(loads)))
    assert view["measured"] is None
    assert view["prediction_error"] is None
    assert view["drift"] is None
    assert world.client.get("/deployments").json() == {"deployments": [view], "total": 1}


def test_a_node_serves_the_newest_deployment_that_names_it(world: World) -> None:
    plan = world.plan(gpus=1)
    world.register("a")
    world.deploy(plan, ["a"], "first")
    world.deploy(plan, ["a"], "second")
    assert (world.assigned("a") or {})["deployment"] == "second"
    assert "second" in world.view("first")["decision"]
    # The same PUT is no longer equal to what is: the node has to come back.
    assert world.deploy(plan, ["a"], "first")["generation"] == 2
    assert (world.assigned("a") or {})["deployment"] == "first"


def test_a_deployment_says_which_node_is_gone_and_what_is_left_to_plan_for(world: World) -> None:
    plan = world.plan(gpus=3)
    for node, devices in (("a", 1), ("b", 1), ("c", 1)):
        world.register(node, devices)
    assert world.deploy(plan, ["a", "b", "c"])["decision"] is None
    world.clock.forward(8)
    for node in ("a", "b"):
        world.register(node, 1)
    world.clock.forward(5)
    said = (
        "incomplete: node c let its lease run out 3 s ago; "
        "plan for the 2 h200 of a, b and put the deployment on them"
    )
    assert world.view()["decision"] == said
    assert world.client.get("/deployments").json()["deployments"][0]["decision"] == said
    assert "lease" in fields(world.put(plan.id, ["a", "b", "c"], rounds=2))["nodes"]
    left = world.plan(gpus=2)
    assert world.deploy(left, ["a", "b"])["decision"] is None
    assert len((world.assigned("b") or {})["devices"]) == 1
    world.clock.forward(11)
    assert "none of its nodes is left" in world.view()["decision"]
    # A node that comes back is taken for what it was.
    world.register("a", 1)
    assert "plan for the 1 h200 of a and" in world.view()["decision"]


def test_deployments_come_in_pages_by_name(world: World) -> None:
    plan = world.plan(gpus=1)
    for name in ("c", "a", "b"):
        world.register(f"of-{name}")
        world.deploy(plan, [f"of-{name}"], name)
    page = world.client.get("/deployments", params={"limit": 1, "offset": 1}).json()
    assert ([each["name"] for each in page["deployments"]], page["total"]) == (["b"], 3)


def test_a_node_left_out_is_free(world: World) -> None:
    plan = world.plan(gpus=1)
    world.register("a")
    world.register("b")
    world.deploy(plan, ["a"])
    world.deploy(plan, ["b"])
    assert world.assigned("a") is None


def test_plans_nodes_and_layers_must_fit(world: World) -> None:
    plan = world.plan(gpus=2)
    world.register("a", 2)
    world.register("c", ["cpu", "h200"])
    world.register("one", 1)
    fields(world.put("0" * 64, ["a"]), 404)
    assert "not registered" in fields(world.put(plan.id, ["nobody"]))["nodes"]
    assert "3 devices" in fields(world.put(plan.id, ["a", "one"]))["nodes"]
    assert "1 devices" in fields(world.put(plan.id, ["one"]))["nodes"]
    assert "device 0 is a h200" in fields(world.put(plan.id, ["c"]))["nodes"]
    assert "twice" in fields(world.put(plan.id, ["one", "one"]))["nodes"]
    assert "layer 3" in fields(world.put(plan.id, ["a"], layers=[0, 3]))["layers"]
    assert "twice" in fields(world.put(plan.id, ["a"], layers=[1, 1]))["layers"]
    world.clock.forward(11)
    assert "lease" in fields(world.put(plan.id, ["a"]))["nodes"]
    fields(world.client.get("/deployments/d"), 404)


def test_a_refused_put_changes_nothing(world: World) -> None:
    plan = world.plan(gpus=1)
    world.register("a")
    world.register("b", 2)
    before = world.deploy(plan, ["a"])
    fields(world.put(plan.id, ["b"]))
    assert world.view() == before
    assert world.assigned("a") is not None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"nodes": []}, "nodes"),
        ({"layers": []}, "layers"),
        ({"layers": [-1]}, "layers.0"),
        ({"rounds": 0}, "rounds"),
        ({"rounds": 10**6}, "rounds"),
        ({"refine": "maybe"}, "refine"),
        ({"generation": 3}, "generation"),
        ({"plan_id": None}, "plan_id"),
    ],
)
def test_a_bad_body_is_refused(client: TestClient, change: dict[str, Any], field: str) -> None:
    body = {"plan_id": "0" * 64, "nodes": ["a"], **change}
    assert field in fields(client.put("/deployments/d", json=body))


def test_unknown_deployments_are_not_found(client: TestClient) -> None:
    fields(client.get("/deployments/d"), 404)
    assert client.get("/deployments").json() == {"deployments": [], "total": 0}


def test_a_past_generation_keeps_its_plan_and_figures(world: World) -> None:
    one, two = world.plan(), world.plan(method="snake")
    world.register("a", 2)
    first = world.deploy(one, ["a"], layers=[0, 2], refine=False)
    for _ in range(2):
        assert world.post(world.batch(one, first, "a", [0, 1])).status_code == 200
    measured = world.view()["measured"]
    assert measured["rounds"] == 2
    world.deploy(two, ["a"], layers=[1], refine=False)
    past = world.client.get("/deployments/d", params={"generation": 1}).json()
    assert (past["generation"], past["plan_id"], past["layers"]) == (1, one.id, [0, 2])
    assert past["measured"] == measured
    assert past["predicted"]["makespan_s"] == pytest.approx(first["predicted"]["makespan_s"])
    assert world.view()["measured"] is None
    missing = world.client.get("/deployments/d", params={"generation": 9})
    assert missing.status_code == 404
    assert "9" in missing.json()["detail"]
