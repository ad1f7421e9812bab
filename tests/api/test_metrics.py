"""`/metrics`: parses, and says what happened."""

from prometheus_client.parser import text_string_to_metric_families

from tests.api.world import World


def _samples(world: World) -> dict[tuple[str, str], float]:
    """Value by (sample name, label values)."""
    answer = world.client.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, " ".join(sample.labels[key] for key in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_nothing_has_happened_yet(world: World) -> None:
    found = _samples(world)
    assert not [name for name, _ in found if name.startswith("hplb_deployment_generation")]
    assert found[("hplb_samples_rejected_total", "")] == 0


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
    found = _samples(world)
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
    assert _samples(world)[("hplb_node_live", "a")] == 0
