"""One client's searches do not keep another's quick plan from being made."""

import httpx

from tests.api.live import LATER
from tests.api.served import Served
from tests.api.world import fields, hard_body, plan_body


def _another(client: httpx.Client) -> httpx.Client:
    """The same service from another address."""
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    return httpx.Client(base_url=client.base_url, transport=transport, timeout=60)


def test_a_quick_plan_is_made_beside_all_the_searches_of_another(served: Served) -> None:
    client = served.start(HPLB_MAX_TIME_LIMIT_S="3600")
    asked = [
        client.post("/plan", json=hard_body(gpus=5 + n, time_limit_s=3600), headers=LATER)
        for n in range(18)
    ]
    taken = [answer for answer in asked if answer.status_code == 202]
    assert len(taken) == 8
    for answer in asked[8:]:
        assert int(answer.headers["retry-after"]) >= 1
        fields(answer, 429)
    with _another(client) as other:
        for gpus in range(1, 6):
            assert other.post("/plan", json=plan_body(gpus=gpus)).status_code == 200
        assert other.post("/plan", json=hard_body(gpus=30), headers=LATER).status_code == 202
    for answer in taken:
        assert client.get(answer.headers["location"]).status_code == 202, "still under way"


def test_what_is_above_the_services_limit_names_it(served: Served) -> None:
    client = served.start(HPLB_MAX_TIME_LIMIT_S="60")
    answer = client.post("/plan", json=hard_body(time_limit_s=61))
    assert "60" in fields(answer)["time_limit_s"]
