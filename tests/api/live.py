"""The service under uvicorn in a thread, and its server-sent events read one by one."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any

import httpx
import uvicorn

from api.app import create_app
from api.connections import PromptProtocol
from api.service import Service
from tests.api.world import plan_body


@contextmanager
def serving(service: Service) -> Iterator[httpx.Client]:
    """A client of the service on a socket of its own."""
    config = uvicorn.Config(
        create_app(service=service),
        http=PromptProtocol,
        log_config=None,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False
            ) as client:
                yield client
        finally:
            service.stop()
            server.should_exit = True
            thread.join(20)
        assert not thread.is_alive()


@dataclass(frozen=True)
class Sent:
    """One server-sent event."""

    event: str
    id: str | None
    data: dict[str, Any]


def events(answer: httpx.Response) -> Iterator[Sent]:
    """The events of a stream as they come; comments are skipped."""
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if line and name:
            fields[name] = value
        elif fields.get("event"):
            yield Sent(fields["event"], fields.get("id"), json.loads(fields["data"]))
            fields = {}


def follow(client: httpx.Client, name: str, last: str | None = None) -> list[Sent]:
    """All events of a plan or solve, to the end of its stream."""
    headers = {} if last is None else {"Last-Event-ID": last}
    with client.stream("GET", f"/plans/{name}/events", headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        return list(events(answer))


LATER = {"Prefer": "respond-async"}
END = {"plan_id", "status", "makespan_s", "lower_bound_s", "gap"}
"""Fields of the last event."""


def ask(client: httpx.Client, **changes: Any) -> str:
    """Ask for a plan without waiting; the solve's id."""
    answer = client.post("/plan", json=plan_body(**changes), headers=LATER)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def until_ended(client: httpx.Client, solve: str) -> httpx.Response:
    """What a solve's id gives once it is no longer under way."""
    while (answer := client.get(f"/plans/{solve}")).status_code == 202:
        time.sleep(0.005)
    return answer


def cancel(client: httpx.Client, solve: str) -> httpx.Response:
    """End a solve; what it then gives, which the answer itself has unless the machine is busy."""
    answer = client.post(f"/plans/{solve}/cancel")
    return until_ended(client, solve) if answer.status_code == 202 else answer


def ends(last: Sent) -> tuple[str, set[str]]:
    """An event's name and its fields' names."""
    return last.event, set(last.data)
