"""`Prefer` as RFC 7240 has it."""

import pytest

from api.solves.prefer import LONGEST_WAIT_S, seconds_to_wait


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ([], None),
        ([""], None),
        (["respond-async"], 0),
        (["Respond-Async"], 0),
        (["wait=10"], 10),
        (['wait = "10"'], 10),
        (["respond-async, wait=10"], 10),
        (["respond-async", "wait=10"], 10),
        (["wait=3; foo=bar, respond-async"], 3),
        (["wait=3, wait=5"], 3),
        (["wait=soon"], None),
        (["wait=-1, respond-async"], 0),
        (["wait"], None),
        (["wait=" + "9" * 5000], LONGEST_WAIT_S),
        (["wait=1e3"], None),
        (["return=minimal; x, handling=lenient"], None),
        (["=;=,,,;"], None),
    ],
)
def test_what_a_client_prefers(headers: list[str], wait_s: float | None) -> None:
    assert seconds_to_wait(headers) == wait_s
