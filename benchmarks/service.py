"""How many requests a second the service answers, beside a bare FastAPI endpoint in turn with it.

    python -m benchmarks.service [--rounds 5] [--seconds 3] [--clients 8] [--json [FILE]]

`bare` reads its body and answers 15 bytes. `cached` is a plan asked for again (77 kB), `compressed`
the same by gzip, `beside` the same while four hard solves run, `fresh` greedy plans of 32 x 32
heads that nobody asked for before, `healthz` what the service does for nothing. Each round goes
through all of them, each from --clients connections kept alive, for --seconds; rates are medians
over rounds, seconds those of all requests. Client and servers share the cores, with whatever else
runs: what a request costs the server's processes in processor time is told too, which others do
not change (of `beside` with the solves). Aims: `cached` at least half of `bare`, its p99 below 50
ms and at most doubled `beside`; `fresh` at least 30 a second.
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
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any

import httpx
import numpy as np

from benchmarks import report
from benchmarks.bodies import cpu_s

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


HARD = {**PLAN, "method": "cp_sat", "tolerance": 0, "time_limit_s": 600, "seed": 1}
SOLVES = 4


@dataclass(frozen=True)
class Server:
    """A server's process and port."""

    pid: int
    port: int


@contextmanager
def _served(*command: str, **environment: str) -> Iterator[Server]:
    """A server, its port read from the URL that it prints first."""
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
        yield Server(process.pid, int(found[1]))
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
            part = self._socket.recv(2**17)
            assert part, "the server has closed the connection"
            said += part
        head, _, rest = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), said[:500]
        found = re.search(rb"content-length: (\d+)", head.lower())
        assert found is not None, head
        left = int(found[1]) - len(rest)
        while left > 0:
            left -= len(self._socket.recv(2**17))
        return int(found[1])


@contextmanager
def _solving(server: Server) -> Iterator[None]:
    """While hard solves run, each in a process of its own."""
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:

        def running() -> int:
            solves = client.get("/solves").json()["solves"]
            return sum(solve["makespan_s"] is not None for solve in solves)

        asked = []
        for more in range(SOLVES):
            later = {"Prefer": "respond-async"}
            answer = client.post("/plan", json={**HARD, "gpus": 5 + more}, headers=later)
            asked.append(answer.raise_for_status().json()["id"])
        while running() < SOLVES:
            time.sleep(0.1)
        yield
        assert running() == SOLVES, "a solve ended while it was measured beside"
        for solve in asked:
            client.post(f"/plans/{solve}/cancel")
        while client.get("/solves").json()["solves"]:
            time.sleep(0.1)


@dataclass(frozen=True)
class Loaded:
    """What came of a server's clients: requests a second, the seconds of each, what one cost the
    server in processor seconds, and the bytes of an answer."""

    per_s: float
    taken: list[float]
    server_s: float
    size: int


def load(server: Server, request: Callable[[], bytes], clients: int, seconds: float) -> Loaded:
    taken: list[float] = []
    sizes: list[int] = []
    begun, spent_s = time.perf_counter(), cpu_s(server.pid)

    def client() -> None:
        connection = Connection(server.port)
        while (started := time.perf_counter()) < begun + seconds:
            sizes.append(connection.ask(request()))
            taken.append(time.perf_counter() - started)

    threads = [Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken, "no request was answered"
    wall_s = time.perf_counter() - begun
    spent_s = cpu_s(server.pid) - spent_s
    return Loaded(len(taken) / wall_s, taken, spent_s / len(taken), max(sizes))


def _row(name: str, rounds: list[Loaded], bare: list[Loaded]) -> Row:
    """What was measured of a case; of `bare` is what the server does in the same time."""
    taken = [second for each in rounds for second in each.taken]
    return {
        "case": name,
        "bytes": rounds[-1].size,
        "requests": len(taken),
        "per_s": median(each.per_s for each in rounds),
        "of_bare": median(r.per_s / b.per_s for r, b in zip(rounds, bare, strict=True)),
        "p50_ms": float(np.quantile(taken, 0.5) * 1e3),
        "p99_ms": float(np.quantile(taken, 0.99) * 1e3),
        "cpu_us": 1e6 * median(each.server_s for each in rounds),
        "cpu_of_bare": median(b.server_s / r.server_s for r, b in zip(rounds, bare, strict=True)),
    }


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
        _served("-c", BARE) as bare,
        _served(
            "-m",
            "api.main",
            "serve",
            "--port",
            "0",
            HPLB_DATABASE_URL=f"sqlite:///{Path(folder) / 'hplb.db'}",
            HPLB_SOLVER_WORKERS=str(SOLVES),
        ) as service,
    ):
        cases: dict[str, tuple[Server, Callable[[], bytes], int]] = {
            "bare": (bare, lambda: _request("POST", "/", asked), options.clients),
            "cached": (service, lambda: cached, options.clients),
            "beside": (service, lambda: cached, options.clients),
            "compressed": (service, lambda: compressed, options.clients),
            "healthz": (service, lambda: _request("GET", "/healthz"), options.clients),
            "fresh": (service, fresh, min(4, options.clients)),
        }
        found: dict[str, list[Loaded]] = {name: [] for name in cases}
        for server, request, _ in cases.values():
            Connection(server.port).ask(request())
        for _ in range(options.rounds):
            for name, (server, request, clients) in cases.items():
                with _solving(service) if name == "beside" else nullcontext():
                    found[name].append(load(server, request, clients, options.seconds))
    rows = [_row(name, rounds, found["bare"]) for name, rounds in found.items()]
    table = report.table_to(options.json)
    heads = ("bytes", "per s", "of bare", "p50 ms", "p99 ms", "CPU us", "of bare")
    print(f"{'case':12}" + "".join(f"{head:>9}" for head in heads), file=table)
    for row in rows:
        print(
            f"{row['case']:12}{row['bytes']:9}{row['per_s']:9.0f}{row['of_bare']:9.2f}"
            f"{row['p50_ms']:9.1f}{row['p99_ms']:9.1f}{row['cpu_us']:9.0f}"
            f"{row['cpu_of_bare']:9.2f}",
            file=table,
        )
    report.deliver(options.json, rounds=options.rounds, clients=options.clients, cases=rows)


if __name__ == "__main__":
    main()
