"""Bodies above the limit, with their length said or not."""

import json
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

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
