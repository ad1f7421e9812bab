"""Plans drawn, compared and drawn as measured."""

from xml.etree import ElementTree

from solver.report.comparison import beside
from solver.report.picture import plan_picture
from tests.api.world import World, fields


def test_a_plan_is_drawn_as_everywhere_else(world: World) -> None:
    plan = world.plan()
    answer = world.client.get(f"/plans/{plan.id}/picture")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.text == plan_picture(plan)
    assert world.client.get(f"/plans/{plan.id}/picture?layer=1").text == plan_picture(plan, 1)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_what_is_not_there_is_not_drawn(world: World) -> None:
    plan = world.plan()
    assert world.client.get("/plans/nobody/picture").status_code == 404
    assert "layer" in fields(world.client.get(f"/plans/{plan.id}/picture?layer=3"))
    assert world.client.get("/comparison?plan=nobody").status_code == 404
    assert "plan" in fields(world.client.get("/comparison"))


def test_plans_of_one_problem_stand_side_by_side(world: World) -> None:
    plans = [world.plan(method=method) for method in ("contiguous", "greedy")]
    query = "&".join(f"plan={plan.id}" for plan in plans)
    told = world.client.get(f"/comparison?{query}").json()
    assert [row["method"] for row in told["rows"]] == ["contiguous", "greedy"]
    assert [row["plan_id"] for row in told["rows"]] == [plan.id for plan in plans]
    bounds = {row["lower_bound_s"] for row in told["rows"]}
    assert bounds == {max(plan.lower_bound_s for plan in plans)}
    assert told["title"].endswith("predicted")
    drawn = world.client.get(f"/comparison/picture?{query}")
    assert drawn.text == beside(plans).picture()


def test_plans_whose_bounds_say_nothing_of_each_other_do_not(world: World) -> None:
    one, other = world.plan(), world.plan(context_tokens=8192)
    answer = world.client.get(f"/comparison?plan={one.id}&plan={other.id}")
    assert "context" in fields(answer)["plan"]
    dense = world.plan(budget={"policy": "dense"})
    answer = world.client.get(f"/comparison?plan={one.id}&plan={dense.id}")
    assert "budgets" in fields(answer)["plan"]


def test_what_was_measured_is_drawn_once_there_is_a_round(world: World) -> None:
    plan = world.plan()
    world.register("a", 2)
    view = world.deploy(plan, ["a"])
    assert world.client.get("/deployments/nobody/picture").status_code == 404
    assert world.client.get("/deployments/d/picture").status_code == 404
    world.post(world.batch(plan, view, "a", [0, 1]))
    drawn = world.client.get("/deployments/d/picture")
    assert drawn.status_code == 200
    words = [e.text for e in ElementTree.fromstring(drawn.text).iter() if e.tag.endswith("text")]
    assert any("predicted and measured" in (w or "") for w in words)
    assert world.client.get("/deployments/d/picture?generation=1").text == drawn.text
    assert world.client.get("/deployments/d/picture?generation=7").status_code == 404
