"""How fast measurements come in: nodes that each send a batch a second and hold a long poll.

    python -m benchmarks.ingest [--nodes 200[@EVERY] ...] [--seconds 30] [--layers 32]
        [--database URL | --postgres] [--samples] [--json [FILE]]

`hplb serve` as a process of its own on loopback, on a new SQLite file, the database named, or a
throw-away PostgreSQL. Nodes of one device serve deployments of eight; each sends a batch every
EVERY seconds (1: a sample a layer, in columns, or as a document each with --samples), renews its
lease every 5 s and holds a long poll, as an executor does. A batch's milliseconds count from when
it was due until it is acknowledged, waiting for the one before it included. Afterwards every
acknowledged batch is looked for in the database. Aims: none lost, p99 under 1 s at 200 nodes with
PostgreSQL and at 50 with SQLite. The load's own processor time is told apart from the planner's.
"""

import argparse
import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sqlalchemy import create_engine, text

from api.client.bodies import MeasurementBatch
from benchmarks import report
from profiles.catalogue import catalogue_rates
from profiles.cost.work import FEATURES
from solver.planning.predict import shard_work
from solver.plans import Plan
from tests import postgres

Json = dict[str, Any]
DEVICE = "h200"
A_DEPLOYMENT = 8
LEASE_EVERY_S = 5.0
POLL_S = 20.0
AIM_S = 1.0
HEADS, KV_HEADS = 32, 8


class Connection:
    """HTTP/1.1 kept alive: a client of a few lines, for the load shares the machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body; raises OSError or EOFError where the planner is away."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
        sized = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + sized).encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        found = re.search(rb"content-length: (\d+)", answer)
        content = await reader.readexactly(int(found[1])) if found else b""
        return int(answer.split(b" ", 2)[1]), content


class Load:
    """What the nodes do, and what became of it."""

    def __init__(self, port: int, every_s: float, until: float) -> None:
        self.port, self.every_s, self.until = port, every_s, until
        self.latencies_s: list[float] = []
        self.acknowledged: list[str] = []
        self.answers: Counter[str] = Counter()
        self.ready_s: list[float] = []

    async def node(self, name: str, batch: Json, offset_s: float) -> None:
        """Batches when they are due, and leases in between."""
        connection, loop = Connection(self.port), asyncio.get_running_loop()
        renewal = json.dumps({"boot_id": "boot", "active": None, "error": None}).encode()
        due = loop.time() + offset_s
        renewed_at = due - LEASE_EVERY_S * offset_s / self.every_s
        while due < self.until:
            await asyncio.sleep(max(0.0, due - loop.time()))
            body = {**batch, "batch_id": str(uuid.uuid4())}
            status, _ = await connection.ask("POST", "/measurements", json.dumps(body).encode())
            self.answers[f"batch {status}"] += 1
            self.latencies_s.append(loop.time() - due)
            if status == 200:
                self.acknowledged.append(body["batch_id"])
            if loop.time() - renewed_at >= LEASE_EVERY_S:
                renewed_at = loop.time()
                status, _ = await connection.ask("PUT", f"/nodes/{name}/lease", renewal)
                self.answers[f"lease {status}"] += 1
            due += self.every_s

    async def poll(self, name: str, deployment: str, generation: int) -> None:
        """An assignment that stays what it is."""
        connection, known = Connection(self.port), (deployment, generation)
        while asyncio.get_running_loop().time() < self.until:
            query = f"deployment={known[0]}&generation={known[1]}&wait_s={POLL_S}"
            status, body = await connection.ask("GET", f"/nodes/{name}/assignment?{query}")
            self.answers[f"poll {status}"] += 1
            if status == 200:
                assigned = json.loads(body)
                known = assigned["deployment"], assigned["generation"]

    async def look(self) -> None:
        """How soon the service says that it is ready."""
        connection, loop = Connection(self.port), asyncio.get_running_loop()
        while loop.time() < self.until:
            started = loop.time()
            status, _ = await connection.ask("GET", "/readyz")
            self.answers[f"ready {status}"] += 1
            self.ready_s.append(loop.time() - started)
            await asyncio.sleep(0.5)


@contextmanager
def planner(database: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`hplb serve` on a database, and its port."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HPLB_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "api.main", "serve", "--port", "0", "--database-url", database],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+?:(\d+)", process.stdout.readline())
        assert found, "hplb serve did not start"
        yield process, int(found[1])
    finally:
        process.terminate()
        process.wait(60)


def profile(layers: int) -> Json:
    """Log-normal budgets, drawn."""
    tokens = np.random.default_rng(1).lognormal(8, 1.2, (layers, HEADS))
    return {
        "schema_version": 1,
        "name": "ingest",
        "architecture": {
            "layers": layers,
            "query_heads": HEADS,
            "kv_heads": KV_HEADS,
            "head_dim": 128,
            "hidden_size": 4096,
            "dtype": "bfloat16",
        },
        "heads": {"form": "budgets", "tokens": np.clip(tokens, 64, 131_072).tolist()},
        "source": "drawn by benchmarks/ingest.py",
        "synthetic": True,
    }


def deployed(client: httpx.Client, nodes: int, layers: int) -> list[Json]:
    """A plan on deployments of eight nodes; of each node its batch but for the id."""
    request = {
        "profile": profile(layers),
        "gpus": A_DEPLOYMENT,
        "device_type": DEVICE,
        "context_tokens": 131_072,
        "method": "greedy",
    }
    answer = client.post("/plan", json=request)
    answer.raise_for_status()
    plan = Plan.parse(answer.content, "answer")
    rates = catalogue_rates([DEVICE], "prefill")[DEVICE]
    batches = []
    for first in range(0, nodes, A_DEPLOYMENT):
        names = [f"node-{first + i}" for i in range(A_DEPLOYMENT)]
        for name in names:
            body = {"node_id": name, "boot_id": "boot", "devices": [DEVICE], "backend": "none"}
            client.post("/nodes", json=body).raise_for_status()
        deployment = f"deployment-{first}"
        wanted = {"plan_id": plan.id, "nodes": names}
        client.put(f"/deployments/{deployment}", json=wanted).raise_for_status()
        for device, name in enumerate(names):
            samples = []
            for layer in range(layers):
                work = np.asarray(shard_work(plan, layer)[device])
                if work.any():
                    counts = dict(zip(FEATURES, work.tolist(), strict=True))
                    seconds = 1.3 * float(rates.seconds(work))
                    samples.append(
                        {"layer": layer, "device": device, "seconds": seconds, "work": counts}
                    )
            batches.append(
                {
                    "batch_id": "none",
                    "deployment": deployment,
                    "plan_id": plan.id,
                    "generation": 1,
                    "node_id": name,
                    "timing": "alone",
                    "samples": samples,
                }
            )
    return batches[:nodes]


async def run(port: int, batches: list[Json], seconds: float, every_s: float) -> Load:
    load = Load(port, every_s, asyncio.get_running_loop().time() + seconds)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.look())
        for index, batch in enumerate(batches):
            offset_s = every_s * index / len(batches)
            tasks.create_task(load.node(batch["node_id"], batch, offset_s))
            tasks.create_task(load.poll(batch["node_id"], batch["deployment"], 1))
    return load


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def stored(database: str) -> tuple[set[str], int]:
    """The ids of batches that are there, and the database's bytes."""
    engine = create_engine(database)
    with engine.connect() as connection:
        ids = set(connection.execute(text("SELECT batch_id FROM batches")).scalars())
        if engine.dialect.name == "postgresql":
            size = connection.execute(text("SELECT pg_database_size(current_database())")).scalar()
        else:
            pages, page = (
                connection.execute(text(f"PRAGMA {name}")).scalar() or 0
                for name in ("page_count", "page_size")
            )
            size = pages * page
    engine.dispose()
    return ids, int(size or 0)


def milliseconds(found_s: list[float]) -> dict[str, float]:
    quantiles = {"p50": 50, "p99": 99, "max": 100}
    return {
        name: round(1000 * float(np.percentile(found_s, share)), 1)
        for name, share in quantiles.items()
    }


def measure(options: argparse.Namespace, nodes: int, every_s: float, database: str) -> Json:
    with planner(database) as (process, port):
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            batches = deployed(client, nodes, options.layers)
        _, empty = stored(database)
        old = len(json.dumps(batches[0]))
        typed = [MeasurementBatch.model_validate(batch) for batch in batches]
        columns = [batch.in_columns().model_dump(mode="json") for batch in typed]
        used_s, own_s = processor_s(process.pid), own_processor_s()
        started = time.monotonic()
        sent = batches if options.samples else columns
        load = asyncio.run(run(port, sent, options.seconds, every_s))
        wall_s = time.monotonic() - started
        used_s = processor_s(process.pid) - used_s
        own_s = own_processor_s() - own_s
        peak_mb = memory_mb(process.pid)
    ids, size = stored(database)
    lost = len(set(load.acknowledged) - ids)
    done = len(load.acknowledged)
    return {
        "database": database.partition(":")[0].partition("+")[0],
        "nodes": nodes,
        "layers": options.layers,
        "every_s": every_s,
        "form": "samples" if options.samples else "columns",
        "seconds": round(wall_s, 1),
        "acknowledged": done,
        "per_second": round(done / wall_s, 1),
        "wanted_per_second": nodes / every_s,
        "lost": lost,
        "answers": dict(sorted(load.answers.items())),
        "batch_ms": milliseconds(load.latencies_s),
        "ready_ms": milliseconds(load.ready_s),
        "service_cpu_ms_a_batch": round(1000 * used_s / max(done, 1), 2),
        "service_cpu_share": round(used_s / wall_s, 2),
        "load_cpu_share": round(own_s / wall_s, 2),
        "service_peak_mb": round(peak_mb),
        "database_bytes_a_batch": round((size - empty) / max(done, 1)),
        "batch_bytes": {"columns": len(json.dumps(columns[0])), "samples": old},
        "met": lost == 0 and bool(np.percentile(load.latencies_s, 99) < AIM_S),
    }


def own_processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=case, nargs="+", default=[(200, 1.0)], metavar="N[@EVERY]")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--samples", action="store_true", help="a document a sample, as before 0.4")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--database", metavar="URL", help="an empty one")
    where.add_argument("--postgres", action="store_true", help="a throw-away server")
    options = report.arguments(parser)
    if options.database and len(options.nodes) > 1:
        parser.error("--database: each number of nodes needs an empty one")
    if options.postgres and (why := postgres.missing()):
        parser.error(why)
    cases = []
    for nodes, every_s in options.nodes:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            database = options.database or f"sqlite:///{folder}/hplb.db"
            if options.postgres:
                database = stack.enter_context(postgres.serving()).create("hplb")
            cases.append(measure(options, nodes, every_s, database))
        for name, value in cases[-1].items():
            print(f"{name:24} {value}", file=report.table_to(options.json))
    report.deliver(options.json, cases=cases)


def case(argument: str) -> tuple[int, float]:
    """Nodes, and seconds between a node's batches."""
    nodes, _, every_s = argument.partition("@")
    return int(nodes), float(every_s or 1)


if __name__ == "__main__":
    main()
