"""`/v1/...` and the paths without a version are one thing, and one metric."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.settings import Settings
from tests.api.test_metrics import samples
from tests.api.world import World, plan_body


@pytest.mark.parametrize("version", ["", "/v1"])
def test_answers_name_paths_as_they_were_asked_for(world: World, version: str) -> None:
    made = world.client.post(f"{version}/plan", json=plan_body())
    assert made.headers["Content-Location"] == f"{version}/plans/{made.json()['id']}"
    assert world.client.get(made.headers["Content-Location"]).json() == made.json()
    later: Any = {"json": plan_body(gpus=4, fresh=True), "headers": {"Prefer": "respond-async"}}
    accepted = world.client.post(f"{version}/plan", **later)
    assert accepted.status_code == 202
    solve = f"{version}/plans/{accepted.json()['id']}"
    assert accepted.headers["Location"] == solve
    assert accepted.json()["events"] == f"{solve}/events"
    assert accepted.json()["cancel"] == f"{solve}/cancel"
    assert world.client.get(solve).status_code in (200, 202)


def test_a_remembered_answer_names_its_path_as_it_is_asked_for(world: World) -> None:
    for _ in range(2):
        for version in ("", "/v1"):
            made = world.client.post(f"{version}/plan", json=plan_body())
            assert made.headers["Content-Location"] == f"{version}/plans/{made.json()['id']}"


def test_both_are_counted_as_one_route(world: World) -> None:
    for path in ("/nodes", "/v1/nodes", "/v1/healthz"):
        assert world.client.get(path).status_code == 200
    assert samples(world)[("hplb_http_requests_total", "GET /nodes 200")] == 2


@pytest.mark.parametrize("path", ["/v1", "/v1/v1/nodes", "/v1/v1", "/v2/nodes", "/x/v1/nodes"])
def test_there_is_one_version_and_it_is_said_once(world: World, path: str) -> None:
    assert world.client.get(path).status_code == 404


def test_a_version_is_no_way_round_the_key(settings: Settings) -> None:
    locked = Settings(**settings.model_dump() | {"api_key": "secret"})
    with TestClient(create_app(locked)) as client:
        for path in ("/v1/nodes", "/v1/v1/nodes", "/v1//nodes", "/nodes", "/v1/version"):
            assert client.get(path).status_code == 401, path
        assert client.get("/v1/healthz").status_code == 200


def test_the_version(world: World) -> None:
    from importlib.metadata import version

    said = world.client.get("/version").json()
    assert said["version"] == version("hplb")
    assert said["api"] == ["/v1"]
