"""Clients that are slow or silent, on real sockets: their connections end, those at work do not."""

import socket
from collections.abc import Iterator

import pytest

from api import body_limit, connections
from api.service import Service
from tests.api.live import serving

STARTS = [
    b"",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{",
    b"POST /plan HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 99\r\n\r\n{",
    b"POST /plan HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
]
ANSWERS = [b"", b"", b"200 OK", b"404 Not Found", b"408 Request Timeout", b"408 Request Timeout"]


@pytest.fixture
def port(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connections, "HEAD_S", 0.2)
    monkeypatch.setattr(connections, "UNREAD_S", 0.2)
    monkeypatch.setattr(body_limit, "PAUSE_S", 0.2)
    with serving(service) as client:
        port = client.base_url.port
        assert port is not None
        yield port


def _all_of(connection: socket.socket) -> bytes:
    said = b""
    while part := connection.recv(4096):
        said += part
    return said


@pytest.mark.parametrize(("start", "answer"), list(zip(STARTS, ANSWERS, strict=True)))
def test_a_connection_that_brings_nothing_more_is_closed(
    port: int, start: bytes, answer: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(start)
        said = _all_of(connection)
    assert answer in said
    assert bool(said) == bool(answer)


def test_fifty_that_drip_are_closed_and_others_answered(port: int) -> None:
    dripping = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(50)]
    for connection in dripping:
        connection.sendall(b"GET / HTTP/1.1\r\nX-a: ")
    while dripping:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as other:
            other.sendall(STARTS[2])
            assert other.recv(4096).startswith(b"HTTP/1.1 200")
        dripping = [connection for connection in dripping if _open(connection)]


def _open(connection: socket.socket) -> bool:
    """Whether the other end is; one that takes nothing any more times out."""
    try:
        connection.send(b"b")
    except ConnectionError:
        connection.close()
        return False
    return True


def test_a_long_poll_is_at_work(port: int) -> None:
    register = b'{"node_id": "a", "boot_id": "b", "devices": ["h200"], "backend": "none"}'
    head = b"POST /nodes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    poll = b"GET /nodes/a/assignment?wait_s=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(register) + register + poll)
        assert b"204 No Content" in _all_of(connection)


def test_an_answer_that_nobody_takes_is_given_up(port: int) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", port))
        ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(ask * 200)
        while _open(connection):
            pass
