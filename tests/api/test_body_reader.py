"""Bodies read at once and by the process, with the same outcome; and what becomes of a dead one."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from sys import getrefcount

import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from starlette.types import Message

from api import body_reader, json_body
from api.body_limit import BodyLimit
from api.body_reader import BodyReader, Refusal, UnreadError, read
from api.client.bodies import MeasurementBatch
from api.problems import Problem
from profiles.model import ModelProfile
from solver.request import PlanRequest
from tests.api.world import World, fields, plan_body, profile

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reader() -> Iterator[BodyReader]:
    reader = BodyReader()
    yield reader
    reader.stop()


def _pid(reader: BodyReader) -> int:
    assert reader._process is not None
    assert reader._process.pid is not None
    return reader._process.pid


BODIES = [
    (PlanRequest, plan_body()),
    (PlanRequest, {**plan_body(), "gpus": 0, "nonsense": 1}),
    (ModelProfile, profile()),
    (MeasurementBatch, {"samples": [{}] * 1000}),
]


@pytest.mark.parametrize(("kind", "body"), BODIES)
def test_the_process_reads_as_the_service_does(
    reader: BodyReader, kind: type, body: object
) -> None:
    content = json.dumps(body).encode()
    assert asyncio.run(reader.read(kind, [content])) == read(kind, content)


def test_figures_that_travel_in_parts_arrive_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_reader, "PART", 5)
    wide = profile("wide", layers=2, heads=body_reader.LEAST + 6)
    found = ModelProfile.model_validate(wide)
    arrived = body_reader.unpacked(body_reader.packed(found))
    assert arrived == found
    assert isinstance(arrived, ModelProfile)
    assert arrived.digest == found.digest


def test_a_profile_comes_with_its_name_and_its_text(reader: BodyReader) -> None:
    found = asyncio.run(reader.read(ModelProfile, [json.dumps(profile()).encode()]))
    assert isinstance(found, ModelProfile)
    same = ModelProfile.model_validate(profile())
    assert (vars(found)["digest"], vars(found)["text"]) == (same.digest, same.model_dump_json())


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 5000, b'{"a": 1, "a": 2}', b"7" * 9999])
def test_what_is_no_json_is_refused(reader: BodyReader, content: bytes) -> None:
    found = asyncio.run(reader.read(PlanRequest, [content]))
    assert isinstance(found, Refusal)
    assert found == read(PlanRequest, content)


def test_a_million_wrong_entries_are_one_fault() -> None:
    found = read(MeasurementBatch, b'{"samples": [' + b"{}," * 99_999 + b"{}]}")
    assert isinstance(found, Refusal)
    assert {e.field for e in found.fields if e.field.startswith("samples")} == {
        f"samples.0.{name}" for name in ("layer", "device", "seconds", "work")
    }


def test_an_object_has_so_many_keys() -> None:
    found = read(PlanRequest, json.dumps({f"k{i}": i for i in range(1001)}).encode())
    assert isinstance(found, Refusal)
    assert "1001 keys in one object" in found.detail


def test_one_that_dies_is_replaced() -> None:
    reader = BodyReader()
    content = json.dumps(plan_body()).encode()
    asyncio.run(reader.read(PlanRequest, [content]))
    os.kill(_pid(reader), signal.SIGKILL)
    with pytest.raises(UnreadError):
        asyncio.run(reader.read(PlanRequest, [content]))
    assert asyncio.run(reader.read(PlanRequest, [content])) == read(PlanRequest, content)
    reader.stop()


def test_large_bodies_go_there(
    world: World, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_body, "SMALL", BodyLimit(10, 10))
    plan = world.plan()
    process = _pid(world.service.body_reader)
    assert "gpus" in fields(client.post("/plan", json=plan_body(gpus=0)))
    assert world.plan() == plan
    os.kill(process, signal.SIGKILL)
    answer = client.post("/plan", json=plan_body())
    fields(answer, 503)
    assert answer.headers["retry-after"]
    assert world.plan() == plan


def test_a_large_body_is_gone_once_it_is_handed_over(
    world: World, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastAPI holds on to what it reads until it answers: for a solve's minutes."""
    monkeypatch.setattr(json_body, "SMALL", BodyLimit(10, 10))
    text = json.dumps(plan_body()).encode()
    chunks = [text[:9], text[9:]]
    held: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def handed_over(_: type, content: list[bytes]) -> Refusal:
        whole = content.pop()
        assert whole == text
        held.append(getrefcount(whole) - 2)  # ours, and the argument of what counts
        return Refusal(400, "told apart", [])

    monkeypatch.setattr(world.service.body_reader, "read", handed_over)
    request = Request({"type": "http", "headers": [], "app": client.app}, receive)
    strict = json_body._StrictRequest(request, PlanRequest)
    assert asyncio.run(strict.body()) == text[:1]
    with pytest.raises(Problem, match="told apart"):
        asyncio.run(strict.json())
    assert held == [0]
