"""Two planners on one database: both start, one refines, and when it dies the other goes on."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.api.live import LATER, until_ended
from tests.api.served import Served
from tests.api.world import plan_body, profile
from tests.service.conftest import times
from tests.service.reporting import Node
from tests.service.stores import Store
from tests.service.stores import postgres as postgres
from tests.service.stores import store as store


def _elected(client: httpx.Client) -> bool:
    metrics = client.get("/metrics").text
    return "hplb_planner_elected 1.0" in metrics


def _until(reached: object) -> None:
    while not reached():  # type: ignore[operator]
        time.sleep(0.05)


def _rates(client: httpx.Client) -> str:
    rates = client.get("/cost-models").json()["rates"]
    (found,) = [r["version"] for r in rates if (r["device"], r["phase"]) == ("h200", "prefill")]
    return str(found)


def test_planners_that_start_at_once_on_an_empty_database_all_start(
    served: Served, store: Store
) -> None:
    processes = [served.command(HPLB_DATABASE_URL=store.url) for _ in times(4, 8)]
    for process in processes:
        assert process.stdout is not None
        assert "hplb serves" in process.stdout.readline(), process.communicate()


def test_one_plan_asked_of_two_planners_at_once_is_stored_once(
    served: Served, store: Store
) -> None:
    clients = [served.start(HPLB_DATABASE_URL=store.url) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        for attempt in times(5, 50):
            body = plan_body(profile=profile(f"p-{attempt}"), method="contiguous")
            headers = {"Idempotency-Key": str(attempt)}
            asked = [
                pool.submit(client.post, "/plan", json=body, headers=headers)
                for client in clients * 2
            ]
            answers = [each.result() for each in asked]
            assert {answer.status_code for answer in answers} == {200}, answers
            (plan_id,) = {answer.json()["id"] for answer in answers}
            assert store.values(f"SELECT id FROM plans WHERE id = '{plan_id}'") == [plan_id]
            later = plan_body(profile=profile(f"p-{attempt}"), method="auto")
            promises = [
                pool.submit(client.post, "/plan", json=later, headers=LATER)
                for client in clients * 2
            ]
            for client, promise in zip(clients * 2, promises, strict=True):
                assert promise.result().status_code in {200, 202}, promise.result().text
                # Not more of them under way than one client may have.
                assert until_ended(client, promise.result().json()["id"]).status_code == 200


def test_one_is_elected_and_another_when_it_is_killed(served: Served, store: Store) -> None:
    clients = [served.start(HPLB_DATABASE_URL=store.url) for _ in range(2)]
    assert [_elected(client) for client in clients] == [True, False]
    node = Node.deployed(clients[1], refine=False)
    for trial in times(2, 10):
        place = [_elected(client) for client in clients].index(True)
        elected, other = clients[place], clients[1 - place]
        # What one takes in, the other learns from.
        _report(other, node, 2.0 + 0.1 * trial, learns=elected)
        assert not _elected(other)
        served.processes[place].kill()
        _until(lambda other=other: _elected(other))
        _report(other, node, 4.0 + 0.1 * trial, learns=other)
        clients[place] = served.start(HPLB_DATABASE_URL=store.url)
        served.processes[place] = served.processes.pop()
        assert not _elected(clients[place])


def _report(client: httpx.Client, node: Node, slow: float, learns: httpx.Client) -> None:
    """A round whose seconds give other rates than before, and wait for these."""
    before = _rates(learns)
    posted = client.post("/measurements", json=node.batch(slow))
    assert posted.status_code == 200, posted.text
    _until(lambda: _rates(learns) != before)
