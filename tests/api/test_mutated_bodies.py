"""Bodies that were right, changed at random: answered, or refused by name, never an error of ours.

pytest tests/api/test_mutated_bodies.py --mutations 10000
"""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.api.engine import Device
from tests.api.world import Json, World, plan_body, profile

STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    1e308,
    float("inf"),
    float("nan"),
    10**30,
    2**63,
    "",
    "x" * 5000,
    "\x00",
    "\ud800",
    "\U0001f600",
    [],
    {},
    [[]],
    [None] * 50,
    {"a": {"b": []}},
]
NOISE = [b"", b"\xff", b"]", b'"', b"\\u", b"0", b","]
JSON = {"content-type": "application/json"}


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value in a document stands."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inside:
        if isinstance(part, dict | list):
            yield from _places(part, (*path, key))
        else:
            yield (*path, key)


def _replaced(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    copied = value.copy()
    copied[path[0]] = _replaced(value[path[0]], path[1:], change)
    return copied


def _changed(value: Any, chance: random.Random) -> Any:
    """A value made strange, or one of its entries dropped, doubled or renamed."""
    kind = chance.randrange(6)
    if isinstance(value, dict) and value and kind < 3:
        key = chance.choice(list(value))
        kept = {k: v for k, v in value.items() if k != key}
        if kind == 0:
            return kept
        return {**kept, chance.choice(["", "\u00e9", key * 2, key.upper()]): value[key]}
    if isinstance(value, list) and value and kind < 3:
        at = chance.randrange(len(value))
        return value[:at] + value[at + 1 :] if kind == 0 else value + value[at : at + 1] * 3
    if isinstance(value, int | float) and not isinstance(value, bool) and kind < 3:
        return chance.choice([value + 1, -value, value * 1000, value + 0.5, str(value)])
    return chance.choice(STRANGE)


def mutated(body: Json, chance: random.Random) -> bytes:
    """One to three changes to the document, and now and then one to its text."""
    document: Any = body
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        place = chance.choice(
            list(_places(document)) if isinstance(document, dict | list) else [()]
        )
        document = _replaced(document, place, lambda value: _changed(value, chance))
    text = json.dumps(document).encode()
    if chance.random() < 0.1:
        at = chance.randrange(len(text) + 1)
        cut = at + chance.randrange(4)
        text = (
            text[:at] + chance.choice([b"", b"\xff", b"]", b'"', b"\\u", b"0", b","]) + text[cut:]
        )
    return text


def test_a_changed_body_is_answered_or_refused(
    world: World, pytestconfig: pytest.Config, record_property: Callable[[str, object], None]
) -> None:
    count = pytestconfig.getoption("--mutations")
    plan = world.plan()
    world.register("a", 2)
    view = world.deploy(plan, ["a"], refine=False)
    engine = world.plan(device_type="cpu", method=..., placement={"slots": 3, "divisible": True})
    for rank in range(2):
        world.register(f"e-{rank}", ["cpu"])
    serves = world.deploy(engine, ["e-0", "e-1"], "e", refine=False)
    half = lambda phase, layer, rows: np.full(len(rows.rows), 0.5)  # noqa: E731, ARG005
    steps, _ = Device(engine, recovers=half).batches(serves, [[(0, 700), (500, 501)]])
    quick = {"method": "contiguous", "time_limit_s": 0.5}
    current = {"current_plan": json.loads(plan.model_dump_json())}
    several = [{"context_tokens": 4096}, {"context_tokens": 512, "profile": profile("other")}]
    asked: list[tuple[str, str, Json]] = [
        ("POST", "/plan", plan_body(**quick)),
        ("POST", "/plan", plan_body(**quick, placement=current)),
        ("POST", "/plan", plan_body(**quick, context_tokens=..., workloads=several)),
        ("PUT", "/profiles/small", profile()),
        ("POST", "/measurements", world.batch(plan, view, "a", [0, 1])),
        ("POST", "/measurements", steps),
        ("PUT", "/deployments/d", {"plan_id": plan.id, "nodes": ["a"], "layers": [0, 1]}),
        ("PUT", "/nodes/a/lease", {"boot_id": "boot", "active": None, "error": "none"}),
        (
            "POST",
            "/nodes",
            {"node_id": "a", "boot_id": "boot", "devices": ["h200"] * 2, "backend": "none"},
        ),
    ]
    chance = random.Random(16)
    seen: set[int] = set()
    for number in range(count):
        method, path, body = asked[number % len(asked)]
        text = mutated(body, chance)
        answer = world.client.request(method, path, content=text, headers=JSON)
        assert answer.status_code < 500, (number, method, path, text, answer.text)
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert len(answer.content) < 50_000, (number, method, path)
        seen.add(answer.status_code)
    assert {200, 400, 422} <= seen
    record_property("attempts", count)
