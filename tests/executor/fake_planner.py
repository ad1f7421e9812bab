"""A planner small enough to see through: docs/http.md's node side over a real socket."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from api.client.bodies import Assignment

LISTED: dict[str, Any] = {
    "boot_id": "boot",
    "devices": ["cpu"],
    "backend": "torch",
    "versions": {},
    "live": True,
    "lease_expires_at": "",
    "active": None,
    "error": None,
}
"""What the list of nodes says of one beyond its registration."""


class FakePlanner:
    """Remembers what nodes sent and keeps its port through `stop` and `start`.

    `verdict` answers every measurement, `refusal` every registration, where they are set; what
    nodes are to run is `wanted`, or where they are named there `wanted_of` each.
    """

    def __init__(self, lease_s: float = 0.6) -> None:
        self.lease_s = lease_s
        self.nodes: dict[str, dict[str, Any]] = {}
        self.registrations: list[dict[str, Any]] = []
        self.leases: list[dict[str, Any]] = []
        self.batches: list[dict[str, Any]] = []
        self.seen: set[str] = set()
        self.wanted: Assignment | None = None
        self.wanted_of: dict[str, Assignment] = {}
        self.verdict: tuple[int, dict[str, Any]] | None = None
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reserve(self) -> "FakePlanner":
        """Choose a port without answering on it yet."""
        return self.start().stop()

    def start(self) -> "FakePlanner":
        planner = self

        class Handler(_Handler):
            state = planner

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> "FakePlanner":
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        return self

    @property
    def up(self) -> bool:
        return self._server is not None

    @property
    def actives(self) -> list[dict[str, Any] | None]:
        return [lease["active"] for lease in self.leases]

    @property
    def errors(self) -> list[str | None]:
        return [lease["error"] for lease in self.leases]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Executors that are killed leave broken connections: nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    state: FakePlanner
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        del format, args

    def parse_request(self) -> bool:
        """A stopped planner leaves connections that were open before without an answer."""
        self.close_connection = not self.state.up
        if not (self.state.up and super().parse_request()):
            return False
        self.path = self.path.removeprefix("/v1")
        return True

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/nodes" and self.state.refusal:
            self._answer(*self.state.refusal)
        elif self.path == "/nodes":
            self.state.registrations.append(body)
            self.state.nodes[body["node_id"]] = body
            self._answer(200, {"node_id": body["node_id"], "lease_s": self.state.lease_s})
        elif self.state.verdict is not None:
            self._answer(*self.state.verdict)
        else:
            duplicate = body["batch_id"] in self.state.seen
            self.state.seen.add(body["batch_id"])
            self.state.batches += [] if duplicate else [body]
            count = 0 if duplicate else len(body["samples"])
            receipt = {"duplicate": duplicate, "accepted": count, "rejected": 0}
            self._answer(200, {"batch_id": body["batch_id"]} | receipt)

    def do_PUT(self) -> None:
        body, node = self._body(), self.path.split("/")[2]
        known = self.state.nodes.get(node)
        if known is None:
            self._answer(404, {"detail": f"no node {node}"})
        elif known["boot_id"] != body["boot_id"]:
            self._answer(409, {"detail": f"another process holds {node}"})
        else:
            self.state.leases.append(body)
            self._answer(200, {"node_id": node, "lease_s": self.state.lease_s})

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/nodes":
            nodes = [LISTED | node for node in self.state.nodes.values()]
            self._answer(200, {"nodes": nodes, "total": len(nodes)})
            return
        node = parts.path.split("/")[2]
        if node not in self.state.nodes:
            self._answer(404, {"detail": "no such node"})
            return
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        end = time.monotonic() + min(float(query["wait_s"]), 60)
        while True:
            wanted = self.state.wanted_of.get(node, self.state.wanted)
            known = (query.get("deployment"), query.get("generation"))
            if wanted is not None and known != (wanted.deployment, str(wanted.generation)):
                self._answer(200, wanted.model_dump(mode="json"))
                return
            if time.monotonic() > end or not self.state.up:
                self._answer(204, None)
                return
            time.sleep(0.02)

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def _answer(self, status: int, body: dict[str, Any] | None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
