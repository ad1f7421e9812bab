"""DELETE: what nothing uses is gone, what is used is refused by the name of its user."""

import pytest

from tests.api.world import Json, World, fields, plan_body, profile


@pytest.fixture
def live(world: World) -> Json:
    """A deployment of a plan on node a."""
    plan = world.plan()
    world.register("a", 2)
    view = world.deploy(plan, ["a"], refine=False)
    assert world.post(world.batch(plan, view, "a", [0, 1])).status_code == 200
    return view


def _delete(world: World, path: str) -> int:
    answer = world.client.delete(path)
    assert answer.status_code != 204 or answer.content == b""
    return answer.status_code


@pytest.mark.parametrize(
    "path", ["/plans/" + "0" * 64, "/profiles/nobody", "/deployments/nobody", "/nodes/nobody"]
)
def test_what_is_not_there_is_404(world: World, path: str) -> None:
    assert _delete(world, path) == 404


def test_a_plan_that_nothing_uses_is_gone_and_is_made_again(world: World) -> None:
    plan = world.plan()
    assert _delete(world, f"/plans/{plan.id}") == 204
    assert _delete(world, f"/plans/{plan.id}") == 404
    assert world.client.get(f"/plans/{plan.id}").status_code == 404
    assert world.client.get("/plans").json()["total"] == 0
    again = world.client.post("/plan", json=plan_body())
    assert again.json()["id"] == plan.id
    assert world.client.get(f"/plans/{plan.id}").content == again.content
    world.register("a", 2)
    world.deploy(plan, ["a"])


def test_a_plan_in_a_history_is_refused(world: World, live: Json) -> None:
    world.deploy(world.plan(method="snake"), ["a"], refine=False)
    refused = world.client.delete(f"/plans/{live['plan_id']}")
    assert fields(refused, 409) == {}
    assert "generation 1 of deployment d" in refused.json()["detail"]
    assert world.client.get(f"/plans/{live['plan_id']}").status_code == 200


def test_a_profiles_name_goes_its_plans_stay(world: World) -> None:
    world.client.put("/profiles/mine", json=profile("mine"))
    plan = world.plan(profile="mine")
    assert _delete(world, "/profiles/mine") == 204
    assert world.client.get("/profiles/mine").status_code == 404
    assert world.client.get(f"/plans/{plan.id}").status_code == 200
    assert (
        "unknown profile"
        in fields(world.client.post("/plan", json=plan_body(profile="mine")))["profile"]
    )


def test_the_catalogues_profiles_stay(world: World) -> None:
    assert _delete(world, "/profiles/llama-3.1-8b-synthetic") == 409


def test_a_deployment_and_its_node_go_once_the_node_is_dead(world: World, live: Json) -> None:
    refused = world.client.delete("/deployments/d")
    assert refused.status_code == 409
    assert "node a" in refused.json()["detail"]
    assert "deployment d" in world.client.delete("/nodes/a").json()["detail"]
    world.clock.forward(11)
    assert "deployment d" in world.client.delete("/nodes/a").json()["detail"]
    assert _delete(world, "/deployments/d") == 204
    assert world.client.get("/deployments").json() == {"deployments": [], "total": 0}
    assert world.client.get("/nodes/a/assignment", params={"wait_s": 0}).status_code == 204
    assert _delete(world, f"/plans/{live['plan_id']}") == 204
    assert _delete(world, "/nodes/a") == 204
    assert world.client.get("/nodes").json() == {"nodes": [], "total": 0}
    assert world.client.get("/nodes/a/assignment", params={"wait_s": 0}).status_code == 404


def test_a_live_node_that_serves_nothing_is_refused(world: World) -> None:
    world.register("a")
    assert "lease" in world.client.delete("/nodes/a").json()["detail"]


def test_a_deployment_of_that_name_begins_anew(world: World, live: Json) -> None:
    world.clock.forward(11)
    assert _delete(world, "/deployments/d") == 204
    plan = world.plan()
    world.register("a", 2)
    view = world.deploy(plan, ["a"])
    assert (view["generation"], view["measured"]) == (1, None)
    assert live["generation"] == 1
