"""`/metrics`: parses, and says what happened."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.deployments import views
from api.deployments.plausible import REASONS
from solver.plans import Plan
from tests.api.world import World


def samples(world: World) -> dict[tuple[str, str], float]:
    """Value by (sample name, label values)."""
    answer = world.client.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, " ".join(sample.labels[key] for key in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_nothing_has_happened_yet(world: World) -> None:
    found = samples(world)
    assert not [name for name, _ in found if name.startswith("hplb_deployment_generation")]
    assert {found[("hplb_samples_rejected_total", reason)] for reason in REASONS} == {0}


def test_solves_requests_deployments_and_nodes_are_counted(world: World) -> None:
    plan = world.plan()
    world.client.get("/plans/none")
    world.client.get("/plans/neither")
    world.client.get("/made/up/path")
    world.register("a", 2)
    view = world.deploy(plan, ["a"], refine=False)
    batch = world.batch(plan, view, "a", [0, 1])
    for _ in range(2):
        world.post(batch)
    world.client.put(
        "/nodes/a/lease", json={"boot_id": "boot", "active": {"deployment": "d", "generation": 1}}
    )
    found = samples(world)
    assert found[("hplb_plan_solve_seconds_count", f"greedy {plan.status}")] == 1
    assert found[("hplb_http_requests_total", "GET /plans/{plan_id} 404")] == 2
    assert found[("hplb_http_requests_total", "any none 404")] == 1
    assert found[("hplb_http_request_seconds_count", "POST /measurements")] == 2
    assert found[("hplb_measurement_batches_total", "accepted")] == 1
    assert found[("hplb_measurement_batches_total", "duplicate")] == 1
    assert found[("hplb_deployment_generation", "d")] == 1
    assert found[("hplb_plan_makespan_seconds", "d")] == view["predicted"]["makespan_s"]
    assert found[("hplb_plan_bound_seconds", "d")] <= found[("hplb_plan_makespan_seconds", "d")]
    assert found[("hplb_deployment_drift_ratio", "d")] == world.view()["drift"]
    assert found[("hplb_cost_model_error_ratio", "d")] == world.view()["prediction_error"]
    assert found[("hplb_node_live", "a")] == 1
    assert found[("hplb_node_active_generation", "a")] == 1
    world.clock.forward(60)
    assert samples(world)[("hplb_node_live", "a")] == 0


def test_what_is_not_taken_is_counted_by_why_not(world: World) -> None:
    plan = world.plan()
    world.register("a", 2)
    view = world.deploy(plan, ["a"], refine=False)
    batch = world.batch(plan, view, "a", [0, 1])
    batch["samples"][0]["seconds"] = 1e-9
    batch["samples"][1]["work"] = {}
    batch["samples"][2]["heads"] = [
        {"head": head_of(plan), "rows": 10**9, "tiles": 1, "recovery": 1}
    ]
    world.post(batch)
    for changes in ({"generation": 7}, {"deployment": "none"}, {"plan_id": "none"}):
        world.post({**world.batch(plan, view, "a", [0, 1]), **changes})
    world.post({**world.batch(plan, view, "a", [0, 1]), "node_id": "b"})
    found = samples(world)
    assert [found[("hplb_samples_rejected_total", reason)] for reason in REASONS] == [1, 1, 1]
    outcomes = {
        labels: value for (name, labels), value in found.items() if name.endswith("batches_total")
    }
    assert outcomes == {"accepted": 1, "superseded": 2, "unknown": 2}


def head_of(plan: Plan) -> int:
    """One that device 0 or 1 computes of the layer of a batch's third sample."""
    return next(h for h, shares in enumerate(plan.layers[1].heads) if shares[0].device == 0)


def test_what_the_database_takes_is_counted_by_what_it_does(world: World) -> None:
    world.register("a")
    world.client.get("/nodes")
    found = samples(world)
    for operation in ("read", "write", "commit"):
        assert found[("hplb_database_seconds_count", operation)] > 0
        assert found[("hplb_database_seconds_sum", operation)] > 0


def test_what_operators_watch_is_there(world: World) -> None:
    plan = world.plan()
    world.register("a", 2)
    view = world.deploy(plan, ["a"], refine=False)
    world.post(world.batch(plan, view, "a", [0, 1]))
    world.clock.forward(90)
    assert world.service.refiner.settle(20)
    found = samples(world)
    assert found[("hplb_plan_gap_ratio", "d")] == plan.gap
    assert found[("hplb_plan_age_seconds", "d")] == 90
    assert found[("hplb_measured_bubble_ratio", "d")] == world.view()["measured"]["bubble_ratio"]
    assert found[("hplb_refine_backlog", "")] == 0
    assert found[("hplb_database_up", "")] == 1
    assert found[("hplb_database_answer_seconds", "")] > 0
    assert found[("process_resident_memory_bytes", "")] > 0


def test_a_scrape_says_that_the_database_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(world.service.database), "answers", lambda _: False)
    found = samples(world)
    assert found[("hplb_database_up", "")] == 0
    assert ("hplb_http_requests_total", "GET /metrics 200") not in found


def test_nobody_makes_up_series(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(5):
        world.client.request(f"MADE{index}", "/nodes")
        world.register(f"n{index}")
    methods = {labels for name, labels in samples(world) if name == "hplb_http_requests_total"}
    assert {each for each in methods if "405" in each} == {"any /nodes 405"}
    monkeypatch.setattr(views, "MOST_SERIES", 2)
    assert len([1 for name, _ in samples(world) if name == "hplb_node_live"]) == 2
