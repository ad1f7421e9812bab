"""`/profiles` and `/cost-models`."""

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
