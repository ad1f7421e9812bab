"""SQLite and PostgreSQL under faults: locked, gone and back, and every schema there ever was."""

import json
import os
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, inspect, text

from api.store import migrations
from api.store.database import Database, upgrade
from api.store.tables import Table
from tests.api.served import Served
from tests.api.world import plan_body
from tests.postgres import Postgres
from tests.service.conftest import FULL, times
from tests.service.reporting import Node
from tests.service.stores import Store
from tests.service.stores import postgres as postgres
from tests.service.stores import store as store

WRITERS = 60
AWAY_S = 30.0 if FULL else 3.0
"""How long a database is locked or away. Not what is tried, only how hard."""


@contextmanager
def away(store: Store) -> Iterator[None]:
    """SQLite's file locked by another program, PostgreSQL ended as by a crash."""
    if store.server is None:
        holder = sqlite3.connect(store.url.removeprefix("sqlite:///"), isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            holder.execute("ROLLBACK")
            holder.close()
        return
    store.server.stop()
    try:
        yield
    finally:
        store.server.start()


def _renew(client: httpx.Client, node: Node) -> httpx.Response:
    return client.put(f"/nodes/{node.name}/lease", json=node.renewal, timeout=90)


def test_sixty_writers_and_a_locked_file_keep_no_reader_waiting(
    served: Served, tmp_path: Path
) -> None:
    store = Store(f"sqlite:///{tmp_path / 'hplb.db'}", None)
    client = served.start(HPLB_DATABASE_URL=store.url)
    node = Node.deployed(client)
    with ThreadPoolExecutor(WRITERS) as pool:
        with away(store):
            renewals = [pool.submit(_renew, client, node) for _ in range(WRITERS)]
            time.sleep(AWAY_S)
            for path in ("/healthz", "/readyz", "/metrics", "/plans", "/nodes", "/deployments"):
                assert client.get(path).status_code == 200, path
            known = {"deployment": "of-a", "generation": 1, "wait_s": 0}
            assert client.get("/nodes/a/assignment", params=known).status_code == 204
            assert not any(renewal.done() for renewal in renewals)
        assert {renewal.result().status_code for renewal in renewals} == {200}


def test_what_was_computed_while_the_database_was_away_is_stored(
    served: Served, store: Store
) -> None:
    client = served.start(HPLB_DATABASE_URL=store.url)
    assert client.post("/plan", json=plan_body()).status_code == 200
    later = plan_body(method="snake")
    with ThreadPoolExecutor(1) as pool:
        if store.server is None:
            with away(store):
                asked = pool.submit(client.post, "/plan", json=later, timeout=120)
                time.sleep(AWAY_S)
                assert not asked.done()
        else:
            # Known to be solving before the server goes: reading comes first.
            hard = plan_body(method="cp_sat", time_limit_s=3 + AWAY_S, tolerance=0)
            asked = pool.submit(client.post, "/plan", json=hard, timeout=120)
            time.sleep(AWAY_S / 2)
            with away(store):
                time.sleep(AWAY_S)
        answer = asked.result()
    assert answer.status_code == 200
    plan_id = answer.json()["id"]
    assert store.values(f"SELECT id FROM plans WHERE id = '{plan_id}'") == [plan_id]


def test_nothing_acknowledged_is_lost_while_the_database_comes_and_goes(
    served: Served, store: Store
) -> None:
    client = served.start(HPLB_DATABASE_URL=store.url)
    node = Node.deployed(client, refine=False)
    acknowledged: set[str] = set()
    ends = False

    def report(_: int) -> set[int]:
        seen = set()
        while not ends:
            batch = node.batch()
            answer = client.post("/measurements", json=batch, timeout=90)
            seen.add(answer.status_code)
            if answer.status_code == 200:
                acknowledged.add(batch["batch_id"])
        return seen

    with ThreadPoolExecutor(8) as pool:
        reports: list[Future[set[int]]] = [pool.submit(report, i) for i in range(8)]
        _until(lambda: len(acknowledged) > 20)
        for _ in range(2):
            with away(store):
                time.sleep(AWAY_S / 2)
            before = len(acknowledged)
            _until(lambda before=before: len(acknowledged) > before + 20)
        ends = True
        seen = set().union(*(each.result() for each in reports))
    assert seen <= {200, 503}
    assert set(store.values("SELECT batch_id FROM batches")) >= acknowledged
    _until(lambda: client.get("/readyz").status_code == 200)
    assert client.get("/deployments/of-a").json()["measured"] is not None


def test_killed_while_batches_come_in_what_was_acknowledged_is_there(
    served: Served, store: Store
) -> None:
    for _ in times(2, 20):
        client = served.start(HPLB_DATABASE_URL=store.url)
        node = Node.deployed(client, refine=False)
        generation = client.get("/deployments/of-a").json()["generation"]
        acknowledged: set[str] = set()

        def report(
            _: int,
            client: httpx.Client = client,
            node: Node = node,
            generation: int = generation,
            acknowledged: set[str] = acknowledged,
        ) -> None:
            while True:
                batch = node.batch(generation=generation)
                try:
                    answer = client.post("/measurements", json=batch)
                except httpx.HTTPError:
                    return
                assert answer.status_code == 200, answer.text
                acknowledged.add(batch["batch_id"])

        with ThreadPoolExecutor(4) as pool:
            reports = [pool.submit(report, i) for i in range(4)]
            _until(lambda acknowledged=acknowledged: len(acknowledged) > 40)
            served.processes[-1].kill()
            for each in reports:
                each.result()
        assert set(store.values("SELECT batch_id FROM batches")) >= acknowledged


def _until(reached: object) -> None:
    while not reached():  # type: ignore[operator]
        time.sleep(0.02)


@pytest.mark.parametrize("into", ["sqlite", "postgresql"])
def test_a_backup_of_either_database_goes_on_in_either(
    served: Served, store: Store, into: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    # However long it takes: what is decided for a node that is gone is another matter.
    lease = {"HPLB_LEASE_S": "3600"}
    client = served.start(HPLB_DATABASE_URL=store.url, **lease)
    node = Node.deployed(client, refine=False)
    batch = node.batch()
    assert client.post("/measurements", json=batch).status_code == 200
    _until(lambda: "hplb_cost_model_refits_total{" in client.get("/metrics").text)
    paths = (f"/plans/{node.plan.id}", "/deployments/of-a", "/profiles", "/cost-models")
    before = [client.get(path).json() for path in paths]
    if into == "sqlite":
        other = f"sqlite:///{tmp_path / 'other.db'}"
    else:
        other = request.getfixturevalue("postgres").create(f"into_{abs(hash(store.url))}")
    for command, url in (("backup", store.url), ("restore", other)):
        done = subprocess.run(
            [sys.executable, "-m", "api.main", command, str(tmp_path / "kept.gz")],
            env={**os.environ, "HPLB_DATABASE_URL": url},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    client = served.start(HPLB_DATABASE_URL=other, **lease)
    assert [client.get(path).json() for path in paths] == before
    assert client.post("/measurements", json=batch).json()["duplicate"] is True
    # What is counted goes on from there.
    assert client.post("/measurements", json=node.batch()).json()["duplicate"] is False
    assert client.post("/plan", json=plan_body(gpus=3)).status_code == 200


VERSIONS = Path(migrations.__path__[0]) / "versions"
REVISIONS = sorted(path.name[:4] for path in VERSIONS.glob("0*.py"))[:-1]
"""Every one but today's."""
OLD_WORK = {"launches": 1.0, "kv_bytes": 4096.0}
SECONDS = (0.5, 0.25)


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_earlier_schema_becomes_this_one_with_its_rows(store: Store, revision: str) -> None:
    engine = create_engine(store.url)
    with engine.begin() as connection:
        upgrade(connection, revision)
        _insert(connection, "plans", id="p", body="{}", summary="{}", created_at=1)
        _insert(connection, "deployments", name="d", plan_id="p", refine_state="{}", generation=1)
        _insert(connection, "batches", id=7, batch_id="b", deployment="d", plan_id="p")
        if revision >= "0005":
            columns = {
                "layers": struct.pack("<2i", 1, 1),
                "devices": struct.pack("<2i", 0, 1),
                "seconds": struct.pack("<2d", *SECONDS),
                "features": json.dumps(sorted(OLD_WORK)),
                "work": b"",
            }
            _insert(connection, "rounds", id=1, batch=7, deployment="d", samples=2, **columns)
        for device, seconds in enumerate(SECONDS if revision < "0005" else ()):
            _insert(
                connection,
                "samples",
                id=device + 1,
                batch=7,
                device=device,
                seconds=seconds,
                device_type="h200",
                phase="prefill",
                work=json.dumps(OLD_WORK),
            )
    engine.dispose()
    Database.open(store.url).close()
    with create_engine(store.url).connect() as connection:
        assert set(inspect(connection).get_table_names()) == {
            *Table.metadata.tables,
            "alembic_version",
        }
    (kept,) = store.values("SELECT samples FROM rounds WHERE batch = 7 AND node_id = 'x'")
    assert kept == 2
    (seconds,) = store.values("SELECT seconds FROM rounds")
    assert bytes(seconds) == struct.pack("<2d", *SECONDS)  # type: ignore[call-overload]
    (features,) = store.values("SELECT features FROM rounds")
    known = json.loads(features) if isinstance(features, str) else features
    # Before 0004 work was counted in features that are no more.
    assert known == (sorted(OLD_WORK) if revision >= "0004" else [])


def _insert(connection: object, table: str, **values: object) -> None:
    """A row whose other columns hold anything that fits."""
    columns = inspect(connection).get_columns(table)  # type: ignore[union-attr]
    row = {}
    for column in columns:
        kind = str(column["type"]).upper()
        if column["name"] in values:
            row[column["name"]] = values[column["name"]]
        elif not column["nullable"]:
            texts = "CHAR" in kind or "TEXT" in kind
            row[column["name"]] = (
                "x" if texts else "[]" if "JSON" in kind else False if "BOOL" in kind else 1
            )
    named = ", ".join(f":{name}" for name in row)
    connection.execute(  # type: ignore[attr-defined]
        text(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({named})"), row
    )


def test_the_routes_and_the_loop_pass_their_tests_on_postgresql(postgres: Postgres) -> None:
    if not postgres.running:
        postgres.start()
    tests = [
        "tests/api/routes/test_measurements.py",
        "tests/api/routes/test_nodes.py",
        "tests/api/routes/test_deployments.py",
        "tests/api/routes/test_profiles.py",
        "tests/api/routes/test_removal.py",
        "tests/api/loop/test_refiner.py",
        "tests/api/store/test_retention.py",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *tests],
        env={**os.environ, "HPLB_TEST_DATABASE_URL": postgres.create("routes")},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
