"""`/profiles` and `/cost-models`."""

import json

import httpx
import pytest
from fastapi.testclient import TestClient

from profiles.catalogue import catalogue_names, device_names
from profiles.model import ModelProfile
from tests.api.world import World, fields, plan_body, profile


def test_a_stored_profile_comes_back_and_is_listed_with_the_catalogue(client: TestClient) -> None:
    before = client.get("/profiles").json()["profiles"]
    assert [entry["name"] for entry in before] == sorted(catalogue_names())
    assert client.put("/profiles/small", json=profile()).status_code == 200
    stored = client.get("/profiles/small")
    assert ModelProfile.parse(stored.content, "stored") == ModelProfile.model_validate(profile())
    entry = next(e for e in client.get("/profiles").json()["profiles"] if e["name"] == "small")
    assert entry["layers"] == 3
    assert entry["query_heads"] == 8
    assert entry["synthetic"] is True
    assert entry["form"] == "budgets"


def test_storing_again_replaces_and_plans_follow_the_content(world: World) -> None:
    client = world.client
    client.put("/profiles/small", json=profile(layers=3))
    first = world.plan(profile="small")
    client.put("/profiles/small", json=profile(layers=4))
    second = world.plan(profile="small")
    assert len(second.layers) == 4
    assert first.profile.digest != second.profile.digest
    assert client.get(f"/plans/{first.id}").status_code == 200


def test_a_profile_must_have_the_name_of_its_path(client: TestClient) -> None:
    assert "name" in fields(client.put("/profiles/other", json=profile()))
    assert "name" in fields(client.put("/profiles/a%00b", json=profile()))


def test_catalogue_profiles_are_read_only(client: TestClient) -> None:
    name = catalogue_names()[0]
    assert client.get(f"/profiles/{name}").json()["name"] == name
    fields(client.put(f"/profiles/{name}", json=profile(name)), 409)


def test_unknown_profiles_are_not_found(client: TestClient) -> None:
    fields(client.get("/profiles/nobody"), 404)


def test_cost_models_name_the_rates_that_plans_use(world: World) -> None:
    rates = world.client.get("/cost-models").json()["rates"]
    assert {(r["device"], r["phase"]) for r in rates} == {
        (device, phase) for device in device_names() for phase in ("prefill", "decode")
    }
    version = next(r["version"] for r in rates if (r["device"], r["phase"]) == ("h200", "prefill"))
    assert world.plan().cost_model == {"h200": version}
    assert (
        world.client.post("/plan", json=plan_body(gpus=3)).json()["cost_model"]["h200"] == version
    )


def put_text(client: TestClient, text: str | bytes) -> httpx.Response:
    return client.put("/profiles/small", content=text, headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("source", "source"),
        ("measurement.task", "measurement.task"),
        ("heads.task.1", "heads.task.1"),
    ],
)
def test_half_a_character_is_refused_by_its_field(
    client: TestClient, path: str, field: str
) -> None:
    name, *inner = path.split(".")
    value: object = "\ud800"
    for part in reversed(inner):
        value = ["fine", value] if part == "1" else {part: value}
    answer = put_text(client, json.dumps({**profile(), name: value}))
    assert list(fields(answer)) == [field]
    assert "half of a surrogate pair" in fields(answer)[field]
    assert put_text(client, json.dumps({**profile(), "source": "\U0001f600"})).status_code == 200


@pytest.mark.parametrize(
    ("method", "route"),
    [
        ("POST", "/plan"),
        ("POST", "/nodes"),
        ("POST", "/measurements"),
        ("PUT", "/deployments/mine"),
    ],
)
def test_half_a_character_in_any_body(client: TestClient, method: str, route: str) -> None:
    body = json.dumps({"profile": {"source": "\udfff"}})
    answer = client.request(
        method, route, content=body, headers={"content-type": "application/json"}
    )
    assert list(fields(answer)) == ["profile.source"]


def test_a_key_that_comes_twice_is_refused(client: TestClient) -> None:
    doubled = json.dumps(profile()).replace("{", '{"synthetic": false, ', 1)
    assert "stands twice in one object" in fields(put_text(client, doubled))["synthetic"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not valid JSON: Expecting property name"),
        ("[" * 100_000, "nested too deeply"),
        (b'{"name": "\xff"}', "not UTF-8: byte 10"),
    ],
)
def test_what_is_no_json_is_said_so(client: TestClient, content: str | bytes, says: str) -> None:
    answer = put_text(client, content)
    assert answer.status_code == 400
    assert says in answer.json()["detail"]


def test_a_byte_order_mark_is_dropped(client: TestClient) -> None:
    assert put_text(client, b"\xef\xbb\xbf" + json.dumps(profile()).encode()).status_code == 200
