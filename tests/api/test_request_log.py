"""One structured line a request, with the ids that find it again, and nothing secret."""

import json
import logging
import re
import sys

import pytest
import structlog
from structlog.testing import capture_logs

from api import logs
from tests.api.world import World, plan_body

SECRET = "do-not-tell"


def _requests(noted: list[structlog.typing.EventDict]) -> list[dict[str, object]]:
    return [dict(each) for each in noted if each["event"] == "request"]


def test_a_plan_is_found_by_request_client_and_id(world: World) -> None:
    with capture_logs([structlog.contextvars.merge_contextvars]) as noted:
        answer = world.client.post(
            "/v1/plan", json=plan_body(), headers={"X-Request-ID": "mine-1", "X-Note": SECRET}
        )
    assert answer.headers["X-Request-ID"] == "mine-1"
    (said,) = _requests(noted)
    seconds = said.pop("seconds")
    assert isinstance(seconds, float)
    assert said == {
        "event": "request",
        "log_level": "info",
        "request": "mine-1",
        "method": "POST",
        "route": "/plan",
        "status": 200,
        "bytes_in": len(answer.request.content),
        "bytes_out": int(answer.headers["Content-Length"]),  # compressed
        "client": "testclient",
        "plan": answer.json()["id"],
    }
    assert SECRET not in str(noted)


def test_a_solve_is_found_by_its_id(world: World) -> None:
    with capture_logs() as noted:
        later = {"Prefer": "respond-async"}
        accepted = world.client.post("/plan", json=plan_body(gpus=3), headers=later)
        world.client.get(f"/plans/{accepted.json()['id']}")
    first, second = _requests(noted)
    assert first["solve"] == accepted.json()["id"]
    assert second["plan"] in (accepted.json()["id"], first.get("plan"), second["plan"])


def test_what_is_logged_of_a_solve_carries_the_request_that_asked_first(world: World) -> None:
    with capture_logs([structlog.contextvars.merge_contextvars]) as noted:
        asked = {"X-Request-ID": "asked-it"}
        plan = world.client.post("/v1/plan", json=plan_body(), headers=asked).json()
    (made,) = (each for each in noted if each["event"] == "plan_made")
    assert (made["request"], made["plan"]) == ("asked-it", plan["id"])
    assert re.fullmatch("[0-9a-f]{64}", made["solve"])


def test_what_the_path_names_is_told_under_its_kind(world: World) -> None:
    with capture_logs() as noted:
        world.client.get("/v1/deployments/prod")
        world.client.get("/nodes/a/assignment?wait_s=0")
        world.client.get("/profiles/mine")
    told = _requests(noted)
    assert [told[0]["deployment"], told[1]["node"], told[2]["profile"]] == ["prod", "a", "mine"]
    assert {each["status"] for each in told} == {404}


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", 'a"', "a/b"])
def test_an_id_that_is_not_fit_to_be_logged_is_replaced(world: World, given: str) -> None:
    with capture_logs([structlog.contextvars.merge_contextvars]) as noted:
        answer = world.client.get("/nodes", headers={"X-Request-ID": given})
    made = answer.headers["X-Request-ID"]
    assert len(made) == 32
    assert made != given
    assert _requests(noted)[0]["request"] == made


def test_neither_made_up_paths_nor_queries_are_logged(world: World) -> None:
    with capture_logs() as noted:
        world.client.get(f"/{SECRET}?key={SECRET}")
        world.client.get(f"/plans?limit=5&x={SECRET}")
    assert [each["route"] for each in _requests(noted)] == ["none", "/plans"]
    assert SECRET not in str(noted)


def test_probes_are_logged_where_they_fail(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with capture_logs() as noted:
        for path in ("/healthz", "/readyz", "/v1/metrics"):
            assert world.client.get(path).status_code == 200
        assert _requests(noted) == []
        monkeypatch.setattr(type(world.service.database), "answers", lambda _: False)
        assert world.client.get("/readyz").status_code == 503
        assert [each["status"] for each in _requests(noted)] == [503]


def test_what_goes_wrong_inside_carries_the_id(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("inside")

    monkeypatch.setattr("api.store.node_store.page", fails)
    with capture_logs([structlog.contextvars.merge_contextvars]) as noted:
        answer = world.client.get("/nodes")
    assert answer.status_code == 500
    ids = {each["request"] for each in noted}
    assert ids == {answer.headers["X-Request-ID"]}
    assert {each["event"] for each in noted} == {"unexpected_error", "request"}


def test_libraries_speak_json_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    before = structlog.get_config()
    try:
        with logs.configured():
            logging.getLogger("some.library").warning("it is %s", "late")
            structlog.get_logger().info("ours", n=1)
    finally:
        structlog.configure(**before)
    theirs, ours = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (theirs["event"], theirs["level"]) == ("it is late", "warning")
    assert theirs["logger"] == "some.library"
    assert (ours["event"], ours["n"]) == ("ours", 1)
    assert not sys.stderr.isatty()
