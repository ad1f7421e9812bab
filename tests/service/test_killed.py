"""The planner killed in the middle of solves, of writes and of planning again: nothing it said is
lost, and the next one takes up what was promised."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

from solver.plans import Plan
from tests.api.live import LATER
from tests.api.served import Served
from tests.api.world import hard_body, plan_body, profile
from tests.service.conftest import times
from tests.service.processes import children, until_gone, until_searching
from tests.service.reporting import Node
from tests.service.stores import Store
from tests.service.stores import postgres as postgres
from tests.service.stores import store as store

FEW = {"HPLB_SOLVER_WORKERS": "1"}
AT_ONCE = {
    **FEW,
    "HPLB_REFINE_MIN_ROUNDS": "2",
    "HPLB_REFINE_COOLDOWN_S": "0",
    "HPLB_REFINE_MIN_GAIN": "0",
}


def _until(reached: Callable[[], object]) -> None:
    while not reached():
        time.sleep(0.05)


def _kill(served: Served) -> None:
    """As the machine's loss of power would, workers and all."""
    process = served.processes[-1]
    own = children(process.pid)
    process.kill()
    process.communicate()
    until_gone(own)


def test_in_solves_those_that_were_promised_are_asked_again(served: Served, store: Store) -> None:
    """One that runs and one that waits for its turn."""
    for attempt in times(2, 34):
        client = served.start(HPLB_DATABASE_URL=store.url, **FEW)
        promised = [
            client.post("/plan", json=hard_body(seed=attempt, gpus=gpus), headers=LATER).json()[
                "id"
            ]
            for gpus in (5, 6)
        ]
        until_searching(client, promised[0])
        _kill(served)
        client = served.start(HPLB_DATABASE_URL=store.url, **FEW)
        assert [solve["id"] for solve in client.get("/solves").json()["solves"]] == promised
        until_searching(client, promised[0])
        for solve in promised:
            assert client.post(f"/plans/{solve}/cancel").status_code in (200, 202, 409)
        _until(lambda client=client: client.get("/solves").json()["solves"] == [])
        _kill(served)


def test_in_writes_what_was_answered_is_there(served: Served, store: Store) -> None:
    for attempt in times(2, 33):
        client = served.start(HPLB_DATABASE_URL=store.url, **FEW)
        plans: list[str] = []
        profiles: list[str] = []

        def make_plans(
            number: int,
            client: httpx.Client = client,
            told: list[str] = plans,
            attempt: int = attempt,
        ) -> None:
            for seed in range(10**6):
                unlike = f"p-{attempt}-{number}-{seed}"
                body = plan_body(profile=profile(unlike), method="contiguous")
                try:
                    answer = client.post("/plan", json=body)
                except httpx.TransportError:
                    return
                assert answer.status_code == 200, answer.text
                told.append(answer.json()["id"])

        def put_profiles(
            number: int,
            client: httpx.Client = client,
            told: list[str] = profiles,
            attempt: int = attempt,
        ) -> None:
            for turn in range(10**6):
                name = f"n-{attempt}-{number}-{turn}"
                try:
                    answer = client.put(f"/profiles/{name}", json=profile(name))
                except httpx.TransportError:
                    return
                assert answer.status_code == 200, answer.text
                told.append(name)

        with ThreadPoolExecutor(4) as pool:
            writers = [pool.submit(work, i) for work in (make_plans, put_profiles) for i in (0, 1)]
            _until(lambda plans=plans, profiles=profiles: len(plans) > 10 and len(profiles) > 10)
            _kill(served)
            for writer in writers:
                writer.result()
        assert set(store.values("SELECT id FROM plans")) >= set(plans)
        assert set(store.values("SELECT name FROM profiles")) >= set(profiles)


def test_in_planning_again_the_deployment_is_whole_and_goes_on(
    served: Served, store: Store
) -> None:
    client = served.start(HPLB_DATABASE_URL=store.url, **AT_ONCE)
    Node.deployed(client)
    for attempt in times(2, 33):
        view = client.get("/deployments/of-a").json()
        live = client.get(f"/plans/{view['plan_id']}")
        node = Node("a", Plan.parse(live.content, "live"))
        # Other rates each time, so that they are fitted and the request is solved anew.
        slow = 2.0 + attempt % 7
        while "hplb_cost_model_refits_total{" not in client.get("/metrics").text:
            answer = client.post("/measurements", json=node.batch(slow, view["generation"]))
            if answer.status_code != 200:  # superseded: it has been planned again
                break
        _kill(served)
        client = served.start(HPLB_DATABASE_URL=store.url, **AT_ONCE)
        after = client.get("/deployments/of-a").json()
        assert after["generation"] >= view["generation"]
        assert store.values(f"SELECT id FROM plans WHERE id = '{after['plan_id']}'")
        numbers = [each["generation"] for each in after["history"]]
        assert sorted(numbers) == list(range(min(numbers), max(numbers) + 1))
        assert max(numbers) == after["generation"]
