"""The network cut between the planner and its database, or its nodes, and healed.

Nothing is refused and no connection is reset: what was sent is lost, and who waits for an answer
waits on.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import httpx
import pytest

from tests import postgres
from tests.api.served import Served, serving_in
from tests.api.world import plan_body
from tests.service.conftest import times
from tests.service.networks import Network, network
from tests.service.reporting import Node
from tests.service.stores import Store

KEY = "of the test"
CUT_S = 8.0
"""Longer than any of the planner's own limits for a server that does not answer."""


@pytest.fixture(scope="module")
def cuttable() -> Iterator[Network]:
    with network() as made:
        yield made


@pytest.fixture
def apart(cuttable: Network, tmp_path: Path) -> Iterator[Served]:
    """Starts planners in that network."""
    with serving_in(tmp_path, cuttable.command) as served:
        yield served


def _started(apart: Served, address: str, url: str) -> httpx.Client:
    client = apart.start(
        "--host", "0.0.0.0", HPLB_DATABASE_URL=url, HPLB_API_KEY=KEY, HPLB_ALLOWED_HOSTS="*"
    )
    return httpx.Client(
        base_url=client.base_url.copy_with(host=address),
        headers={"authorization": f"Bearer {KEY}"},
        timeout=60,
        trust_env=False,
    )


def _report(client: httpx.Client, node: Node, acknowledged: set[str], over: Event) -> None:
    """A node's batches, each sent again until it is acknowledged, as an executor does."""
    while not over.is_set():
        batch = node.batch()
        while True:
            try:
                answer = client.post("/measurements", json=batch, timeout=2)
            except httpx.TransportError:
                continue
            if answer.status_code == 200:
                break
            assert answer.status_code == 503, answer.text
        acknowledged.add(batch["batch_id"])


@contextmanager
def _reporting(client: httpx.Client, node: Node) -> Iterator[set[str]]:
    """Four threads of a node report; what was acknowledged so far."""
    acknowledged: set[str] = set()
    over = Event()
    with ThreadPoolExecutor(4) as pool:
        reports = [pool.submit(_report, client, node, acknowledged, over) for _ in range(4)]
        try:
            yield acknowledged
        finally:
            over.set()
        for each in reports:
            each.result()


def _until_more(acknowledged: set[str]) -> None:
    wanted = len(acknowledged) + 20
    while len(acknowledged) < wanted:
        time.sleep(0.02)


def test_cut_from_its_database_it_says_so_and_goes_on_when_that_is_back(
    apart: Served, cuttable: Network
) -> None:
    if why := postgres.missing():
        pytest.skip(why)
    with postgres.serving(cuttable.database.here) as server:
        store = Store(server.create("cut"), server)
        client = _started(apart, cuttable.nodes.there, store.url)
        node = Node.deployed(client, refine=False)
        with _reporting(client, node) as acknowledged:
            for _ in times(1, 5):
                _until_more(acknowledged)
                with cuttable.database.cut():
                    while client.get("/readyz").status_code == 200:
                        pass
                    assert client.get("/healthz").status_code == 200
                    assert client.get("/metrics").status_code == 200
                    time.sleep(CUT_S)
                while client.get("/readyz").status_code != 200:
                    pass
                _until_more(acknowledged)
        assert set(store.values("SELECT batch_id FROM batches")) >= acknowledged
        assert client.post("/plan", json=plan_body(gpus=3)).status_code == 200


def test_cut_from_its_nodes_nothing_acknowledged_is_lost_nor_stored_twice(
    apart: Served, cuttable: Network, tmp_path: Path
) -> None:
    store = Store(f"sqlite:///{tmp_path / 'hplb.db'}", None)
    client = _started(apart, cuttable.nodes.there, store.url)
    node = Node.deployed(client, refine=False)
    with _reporting(client, node) as acknowledged:
        for _ in times(2, 10):
            _until_more(acknowledged)
            with cuttable.nodes.cut():
                time.sleep(CUT_S / 2)
            _until_more(acknowledged)
    stored = store.values("SELECT batch_id FROM batches")
    assert len(stored) == len(set(stored))
    assert set(stored) >= acknowledged
