"""`/plan` and `/plans`: what is asked for, what is stored, and every way to ask wrongly."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from solver.planning.planner import make_plan
from solver.plans import Plan, content_id
from solver.verifier import verify
from tests.api import in_process
from tests.api.world import World, fields, plan_body, profile
from tests.solver.budgets.builders import calibrated


def test_a_plan_is_made_stored_and_true(world: World) -> None:
    plan = world.plan()
    assert content_id(plan.model_dump(mode="json")) == plan.id
    assert verify(plan.model_dump(mode="json")).faults == []
    stored = world.client.get(f"/plans/{plan.id}")
    assert Plan.parse(stored.content, "stored") == plan


def test_an_equal_request_gets_the_stored_plan_and_a_fresh_one_is_solved_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    solves = []

    def counted(*args: Any, **more: Any) -> Plan:
        solves.append(args[0])
        return make_plan(*args, **more)

    monkeypatch.setattr(in_process, "make_plan", counted)
    first, second = world.plan(), world.plan()
    assert first == second
    assert len(solves) == 1
    assert world.plan(fresh=True).id == first.id
    assert len(solves) == 2
    world.plan(gpus=4)
    assert len(solves) == 3


def test_the_list_is_newest_first_with_a_total(world: World) -> None:
    ids = []
    for gpus in (1, 2, 3):
        world.clock.forward(1)
        ids.append(world.plan(gpus=gpus).id)
    page = world.client.get("/plans", params={"limit": 2, "offset": 1}).json()
    assert [plan["id"] for plan in page["plans"]] == [ids[1], ids[0]]
    assert page["total"] == 3
    assert page["plans"][0]["devices"] == {"h200": 2}


def test_a_plan_that_the_client_has_is_not_sent_again(world: World) -> None:
    url = f"/plans/{world.plan().id}"
    tag = world.client.get(url).headers["etag"]
    for known in (tag, tag.removeprefix("W/"), f'"other", {tag}'):
        answer = world.client.get(url, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert world.client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_slots_are_asked_for_and_told(world: World) -> None:
    plan = world.plan(method="auto", placement={"slots": "auto", "divisible": True})
    assert plan.slots is not None
    assert plan.workload.deployment == "tensor_parallel"
    assert verify(plan.model_dump(mode="json")).faults == []


def test_more_devices_than_heads_is_allowed_with_a_warning(world: World) -> None:
    assert world.plan(gpus=20).warnings


def test_a_profile_can_be_named(world: World) -> None:
    assert world.client.put("/profiles/small", json=profile()).status_code == 200
    assert world.plan(profile="small").id == world.plan().id


@pytest.mark.parametrize("block", [16, 32])
def test_a_plan_in_small_blocks(world: World, block: int) -> None:
    plan = world.plan(block_tokens=block)
    assert plan.workload.block_tokens == block
    assert verify(plan.model_dump(mode="json")).faults == []


def test_a_plan_in_pieces_of_blocks(world: World) -> None:
    fine = world.plan(block_tokens=64, piece_tokens=16)
    stored = world.client.get(f"/plans/{fine.id}").json()
    assert stored["workload"]["piece_tokens"] == 16
    assert verify(stored).faults == []
    same = world.plan(block_tokens=64, piece_tokens=64)
    assert "piece_tokens" not in world.client.get(f"/plans/{same.id}").json()["workload"]
    assert same.id == world.plan().id != fine.id


def test_the_document_names_both_sizes(world: World) -> None:
    schemas = world.client.get("/openapi.json").json()["components"]["schemas"]
    asked = schemas["PlanRequest"]["properties"]["piece_tokens"]
    assert {"type": "integer", "enum": [16, 32, 64, 128]} in asked["anyOf"]
    steps = [name for name in schemas if name == "Step" or name.startswith("Step-")]
    assert steps
    for name in steps:
        assert schemas[name]["properties"]["piece_tokens"]["type"] == "integer"
        assert "block_tokens" in schemas[name]["required"]
        assert "piece_tokens" not in schemas[name]["required"]


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"profile": "nobody"}, "profile", "llama"),
        ({"profile": 3}, "profile", "string"),
        ({"profile": ...}, "profile", "required"),
        ({"gpus": 0}, "gpus", "greater than or equal to 1"),
        ({"gpus": -2}, "gpus", "greater than or equal to 1"),
        ({"gpus": 10**9}, "gpus", "4096"),
        ({"gpus": ...}, "gpus", "give gpus"),
        ({"device_type": "tpu"}, "device_type", "h200"),
        ({"gpus": ..., "devices": [{"type": "tpu"}]}, "devices", "h200"),
        ({"gpus": ..., "devices": []}, "devices", "at least 1"),
        ({"gpus": ..., "devices": [{"type": "h200", "count": 0}]}, "devices.0.count", "1"),
        ({"context_tokens": 0}, "context_tokens", "1"),
        ({"context_tokens": 10**12}, "context_tokens", "less than or equal"),
        ({"budget": {"policy": "uniform", "tokens": 9999}}, "budget.tokens", "context_tokens"),
        ({"budget": {"policy": "uniform"}}, "budget.tokens", "needs"),
        ({"budget": {"margin": -1}}, "budget.margin", "greater than or equal to 0"),
        ({"budget": {"floor_tokens": 16}}, "budget.floor_tokens", "max_min"),
        ({"block_tokens": 48}, "block_tokens", "16, 32, 64 or 128"),
        ({"piece_tokens": 48}, "piece_tokens", "16, 32, 64 or 128"),
        ({"block_tokens": 16, "piece_tokens": 32}, "piece_tokens", "does not divide block_tokens"),
        ({"piece_tokens": 128}, "piece_tokens", "does not divide block_tokens, 64"),
        ({"method": "magic"}, "method", "cp_sat"),
        ({"time_limit_s": 0}, "time_limit_s", "greater than 0"),
        ({"time_limit_s": -1}, "time_limit_s", "greater than 0"),
        ({"tolerance": 2}, "tolerance", "less than 1"),
        ({"phase": "training"}, "phase", "prefill"),
        ({"surprise": 1}, "surprise", "not permitted"),
        ({"placement": {"unit": "tensor"}}, "placement.unit", "kv_group"),
        ({"placement": {"slots": "most"}}, "placement.slots", "a whole number of at least 1"),
        ({"placement": {"slots": 99}}, "placement.slots", "must be from"),
    ],
)
def test_a_bad_field_is_named(world: World, changes: dict[str, Any], field: str, says: str) -> None:
    found = fields(world.client.post("/plan", json=plan_body(**changes)))
    assert says in found[field]


def _spoilt(path: list[str | int], value: object) -> dict[str, Any]:
    spoilt = profile()
    place: Any = spoilt
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return spoilt


@pytest.mark.parametrize(
    ("path", "value", "field", "says"),
    [
        (["heads", "tokens", 1, 2], float("nan"), "profile.heads.tokens", "layer 1, head 2"),
        (["heads", "tokens", 0, 0], float("inf"), "profile.heads.tokens", "layer 0, head 0"),
        (["heads", "tokens", 0, 0], -5, "profile.heads.tokens", "layer 0, head 0"),
        (["heads", "tokens", 1], [64] * 7, "profile.heads.tokens", "ragged"),
        (["heads", "tokens"], [], "profile.heads.tokens", "full array"),
        (["heads", "tokens"], [[64] * 8] * 2, "profile.heads", "2 layers"),
        (["heads", "form"], "guess", "profile.heads", "budgets"),
        (["architecture", "kv_heads"], 3, "profile.architecture", "multiple"),
        (["architecture", "layers"], 0, "profile.architecture.layers", "greater"),
        (["name"], "../../etc/passwd", "profile.name", "pattern"),
        (["extra"], 1, "profile.extra", "not permitted"),
    ],
)
def test_a_bad_profile_is_told_where(
    world: World, path: list[str | int], value: object, field: str, says: str
) -> None:
    body = json.dumps(plan_body(profile=_spoilt(path, value)))
    answer = world.client.post("/plan", content=body, headers={"content-type": "application/json"})
    found = fields(answer)
    assert says in found[field], found


@pytest.mark.parametrize(
    "body", [b"{", b"", b"[1,", b"\xff\xfe", b'{"gpus": ' + b"9" * 5000 + b"}", b"[" * 100_000]
)
def test_what_is_not_json_is_a_problem(client: TestClient, body: bytes) -> None:
    answer = client.post("/plan", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_costs_out_of_the_policy_are_bad_input_not_a_crash(world: World) -> None:
    answer = world.client.post("/plan", json=plan_body(budget={"policy": "recovery"}))
    fields(answer)
    assert "recovery" in answer.json()["detail"]


def test_unknown_plans_and_wrong_pages(client: TestClient) -> None:
    fields(client.get("/plans/" + "0" * 64), 404)
    assert "limit" in fields(client.get("/plans?limit=0"))
    assert "offset" in fields(client.get(f"/plans?offset={2**70}"))
    fields(client.delete("/plans"), 405)
    fields(client.get("/nowhere"), 404)


def test_a_stopping_service_starts_no_solve(world: World) -> None:
    world.service.answerer.stop()
    fields(world.client.post("/plan", json=plan_body()), 503)


def test_more_than_the_service_allows_is_named(world: World) -> None:
    long = world.client.post("/plan", json=plan_body(time_limit_s=3600))
    assert "600" in fields(long)["time_limit_s"]
    wide = plan_body(profile=profile("wide", layers=64, heads=64), gpus=4096)
    assert "HPLB_MAX_SOLVE_SIZE" in fields(world.client.post("/plan", json=wide))["gpus"]


def test_a_device_list_that_would_fill_the_memory_is_refused_at_once(world: World) -> None:
    many = [{"type": "h200", "count": 4096}] * 3000
    answer = world.client.post("/plan", json=plan_body(gpus=..., devices=many))
    assert "devices" in " ".join(fields(answer)) + answer.json()["detail"]


@pytest.mark.parametrize("name", ["", "a\x00b", "x" * 5000])
def test_a_profile_name_that_cannot_be_one_is_refused(world: World, name: str) -> None:
    assert fields(world.client.post("/plan", json=plan_body(profile=name)))


def test_gpus_is_a_number_and_no_truth_value(world: World) -> None:
    assert "gpus" in fields(world.client.post("/plan", json=plan_body(gpus=True)))


def test_a_loss_is_asked_for_and_promised(world: World) -> None:
    body = {"profile": calibrated().model_dump(mode="json"), "context_tokens": 8192}
    budget = {"policy": "least_error", "loss": 0.5}
    plan = world.plan(**body, budget=budget)
    assert plan.loss is not None
    assert (plan.loss.bound, plan.loss.high <= 0.5) == (0.5, True)
    assert plan.loss.low <= plan.loss.nats <= plan.loss.high
    assert verify(plan.model_dump(mode="json")).faults == []
    assert world.client.get(f"/plans/{plan.id}").json()["loss"] == plan.loss.model_dump()
    assert "loss" not in world.plan().model_dump()
    bare = world.client.post(
        "/plan", json=plan_body(**body | {"profile": profile()}, budget=budget)
    )
    assert bare.status_code == 422
