"""Bodies above the limits of bytes, values and time, with their length said or not."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from starlette.requests import Request

from api import body_limit
from api.body_limit import BodiesHeld, BodyLimit, Received
from api.problems import Problem
from tests.api.world import World, fields, plan_body

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("size", [1_000_001, 3_000_000, 50_000_000])
def test_a_large_body_is_refused(client: TestClient, size: int) -> None:
    fields(client.post("/plan", content=b"x" * size, headers=JSON), 413)


@pytest.mark.parametrize("chunks", [101, 300])
def test_a_chunked_one_too(client: TestClient, chunks: int) -> None:
    def stream() -> Iterator[bytes]:
        for _ in range(chunks):
            yield b" " * 10_000

    fields(client.post("/plan", content=stream(), headers=JSON), 413)


def test_a_length_that_lies_does_not_help(client: TestClient) -> None:
    headers = {**JSON, "content-length": "2"}
    fields(client.post("/plan", content=b" " * 1_000_001, headers=headers), 413)


def test_a_body_of_exactly_the_limit_is_read(world: World) -> None:
    body = json.dumps(plan_body()).encode()
    answer = world.client.post("/plan", content=body.ljust(1_000_000), headers=JSON)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/measurements", b'{"samples": [' + b"{}," * 300_000 + b"{}]}"),
        ("/plan", b'{"profile": [' + b"1," * 200_000 + b"1]}"),
        ("/nodes", b'{"devices": [' + b"[]," * 60_000 + b"1]}"),
        ("/plan", b"[" * 900_000),
    ],
)
def test_too_many_values_are_refused_unparsed(client: TestClient, path: str, body: bytes) -> None:
    answer = client.post(path, content=body, headers=JSON)
    fields(answer, 413)
    assert "values" in answer.text
    assert answer.headers["connection"] == "close"


def _body(*parts: bytes, silent: bool) -> Request:
    """A request whose body comes in these parts; then it ends, or nothing comes any more."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]

    async def receive() -> dict[str, object]:
        if messages:
            return messages.pop(0)
        if silent:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    return Request({"type": "http", "headers": []}, receive)  # type: ignore[arg-type]


def _received(request: Request, held: BodiesHeld) -> Received:
    return asyncio.run(BodyLimit(99, 99).receive(request, held))


def test_values_are_bounded_by_what_separates_them() -> None:
    received = _received(_body(b'{"a": [1, ', b"2]}", silent=False), BodiesHeld())
    assert (received.content, received.most_values) == (b'{"a": [1, 2]}', 5)


@pytest.mark.parametrize("limit", ["PAUSE_S", "WHOLE_S"])
def test_a_body_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(body_limit, limit, 0.01)
    held = BodiesHeld(2)
    with pytest.raises(Problem, match="did not come in time") as caught:
        _received(_body(b"{", silent=True), held)
    assert caught.value.status_code == 408
    assert _received(_body(b"{}", silent=False), held).content == b"{}"


def test_all_bodies_together_are_bounded() -> None:
    held = BodiesHeld(3)
    _received(_body(b"{}", silent=False), held)
    with pytest.raises(Problem, match="too many large bodies") as caught:
        _received(_body(b"{", b"}", silent=False), held)
    assert caught.value.status_code == 503
    held.drop(2)
    _received(_body(b"{}", silent=False), held)


def test_none_is_held_once_it_is_answered(client: TestClient, world: World) -> None:
    world.plan()
    client.post("/plan", content=b"{", headers=JSON)
    client.post("/plan", content=b"[" * 900_000, headers=JSON)
    assert vars(world.service.bodies_held)["_bytes"] == 0
