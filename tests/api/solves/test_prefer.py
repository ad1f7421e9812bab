"""`Prefer` as RFC 7240 has it, `Priority` as RFC 9218."""

import pytest

from api.solves.prefer import LONGEST_WAIT_S, seconds_to_wait, urgency


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


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, 3),
        ("", 3),
        ("u=0", 0),
        ("u=7, i", 7),
        ("i, u=5", 5),
        ("i,u=5;x=1", 5),
        ("u=8", 3),
        ("u=12", 3),
        ("u", 3),
        ("mu=1", 3),
        ("u=" + "9" * 5000, 3),
    ],
)
def test_how_urgent_it_is(header: str | None, wanted: int) -> None:
    assert urgency(header) == wanted
