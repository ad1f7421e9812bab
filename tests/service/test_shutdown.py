"""A stop under load: what was answered is kept, what was not is not answered by half."""

import signal
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import httpx

from tests.api.served import Served
from tests.api.world import profile

CLIENTS = 8


def test_a_stop_under_load_keeps_what_it_answered(served: Served) -> None:
    client = served.start()
    url, busy, told = str(client.base_url), [Event() for _ in range(CLIENTS)], []

    def write(number: int) -> None:
        """Store profiles until nobody answers; those answered are noted."""
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as mine:
            for turn in range(10_000):
                name = f"p-{number}-{turn}"
                try:
                    answer = mine.put(f"/v1/profiles/{name}", json=profile(name))
                except httpx.TransportError:
                    return
                assert answer.status_code in (200, 503), answer.text
                if answer.status_code == 503:
                    return
                assert answer.json()["name"] == name
                told.append(name)
                if turn == 2:
                    busy[number].set()

    with ThreadPoolExecutor(CLIENTS) as pool:
        writers = [pool.submit(write, number) for number in range(CLIENTS)]
        assert all(each.wait(60) for each in busy)
        process = served.processes[-1]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        for writer in writers:
            writer.result()
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in err
    listed = served.start().get("/v1/profiles").json()["profiles"]
    assert set(told) <= {each["name"] for each in listed}
