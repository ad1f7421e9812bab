"""How many requests a second the service answers, beside a bare FastAPI endpoint in turn with it.

    python -m benchmarks.service [--rounds 5] [--seconds 3] [--clients 8] [--json [FILE]]

`bare` reads its body and answers 15 bytes. `cached` is a plan asked for again (77 kB), `compressed`
the same by gzip, `fresh` greedy plans of 32 x 32 heads that nobody asked for before, `healthz` what
the service does for nothing. Each round goes through all of them, each from --clients connections
kept alive, for --seconds; rates are medians over rounds, seconds those of all requests. Client and
servers share the cores. Aims: `cached` at least half of `bare`, its p99 below 50 ms; `fresh`
at least 30 a second.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any

import numpy as np

from benchmarks import report

Row = dict[str, Any]
BARE = """
import asyncio, socket
import uvicorn
from fastapi import FastAPI, Request, Response

app = FastAPI()

@app.post("/")
async def bare(request: Request) -> Response:
    await request.body()
    return Response(b'{"status":"ok"}', media_type="application/json")

listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
config = uvicorn.Config(app, log_config=None, access_log=False)
uvicorn.Server(config).run(sockets=[listener])
"""
PLAN = {
    "profile": "llama-3.1-8b-synthetic",
    "gpus": 8,
    "context_tokens": 131_072,
    "method": "greedy",
}


@contextmanager
def _served(*command: str, **environment: str) -> Iterator[int]:
    """A server's port, read from the URL that it prints first."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HPLB_")}
    process = subprocess.Popen(
        [sys.executable, *command],
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+?:(\d+)", process.stdout.readline())
        assert found, "the server did not start"
        # What it says later is read, or it would wait for that.
        Thread(target=process.stdout.read, daemon=True).start()
        yield int(found[1])
    finally:
        process.kill()
        process.wait()


def _request(method: str, path: str, body: bytes = b"", *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", *more, "", ""]).encode() + body


class Connection:
    """One kept alive; the least that a client has to do."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> int:
        """Bytes of the answer's body; it has to be a success."""
        self._socket.sendall(request)
        said = b""
        while b"\r\n\r\n" not in said:
            said += self._socket.recv(2**17)
        head, _, rest = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), said[:500]
        found = re.search(rb"content-length: (\d+)", head.lower())
        assert found is not None, head
        left = int(found[1]) - len(rest)
        while left > 0:
            left -= len(self._socket.recv(2**17))
        return int(found[1])


def load(
    port: int, request: Callable[[], bytes], clients: int, seconds: float
) -> tuple[float, list[float], int]:
    """Requests a second, the seconds of each, and the bytes of an answer."""
    taken: list[float] = []
    sizes: list[int] = []
    begun = time.perf_counter()

    def client() -> None:
        connection = Connection(port)
        while (started := time.perf_counter()) < begun + seconds:
            sizes.append(connection.ask(request()))
            taken.append(time.perf_counter() - started)

    threads = [Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken, "no request was answered"
    return len(taken) / (time.perf_counter() - begun), taken, max(sizes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=8)
    options = report.arguments(parser)
    asked = json.dumps(PLAN).encode()
    cached = _request("POST", "/plan", asked)
    compressed = _request("POST", "/plan", asked, "Accept-Encoding: gzip")
    different = count(1)

    def fresh() -> bytes:
        return _request("POST", "/plan", json.dumps({**PLAN, "seed": next(different)}).encode())

    with (
        tempfile.TemporaryDirectory() as folder,
        _served("-c", BARE) as bare_port,
        _served(
            "-m",
            "api.main",
            "serve",
            "--port",
            "0",
            HPLB_DATABASE_URL=f"sqlite:///{Path(folder) / 'hplb.db'}",
        ) as port,
    ):
        cases: dict[str, tuple[int, Callable[[], bytes], int]] = {
            "bare": (bare_port, lambda: _request("POST", "/", asked), options.clients),
            "cached": (port, lambda: cached, options.clients),
            "compressed": (port, lambda: compressed, options.clients),
            "healthz": (port, lambda: _request("GET", "/healthz"), options.clients),
            "fresh": (port, fresh, min(4, options.clients)),
        }
        rates: dict[str, list[float]] = {name: [] for name in cases}
        taken: dict[str, list[float]] = {name: [] for name in cases}
        size = {}
        for name, (at, request, _) in cases.items():
            size[name] = Connection(at).ask(request())
        for _ in range(options.rounds):
            for name, (at, request, clients) in cases.items():
                rate, seconds, size[name] = load(at, request, clients, options.seconds)
                rates[name].append(rate)
                taken[name] += seconds
    rows = [
        {
            "case": name,
            "bytes": size[name],
            "requests": len(taken[name]),
            "per_s": median(rates[name]),
            "of_bare": median(r / b for r, b in zip(rates[name], rates["bare"], strict=True)),
            "p50_ms": float(np.quantile(taken[name], 0.5) * 1e3),
            "p99_ms": float(np.quantile(taken[name], 0.99) * 1e3),
        }
        for name in cases
    ]
    table = report.table_to(options.json)
    print(
        f"{'case':12}{'bytes':>8}{'per s':>9}{'of bare':>9}{'p50 ms':>9}{'p99 ms':>9}", file=table
    )
    for row in rows:
        print(
            f"{row['case']:12}{row['bytes']:9}{row['per_s']:9.0f}{row['of_bare']:9.2f}"
            f"{row['p50_ms']:9.1f}{row['p99_ms']:9.1f}",
            file=table,
        )
    report.deliver(options.json, rounds=options.rounds, clients=options.clients, cases=rows)


if __name__ == "__main__":
    main()
