"""Leases under clocks that are set: none has more than `lease_s` left, and the dead stay dead."""

import pytest

from api.deployments.leases import Leases
from api.store.tables import StoredNode
from tests.api.world import Clock, World, fields

LEASE_S = 15.0


@pytest.fixture
def wall() -> Clock:
    return Clock()


@pytest.fixture
def steady() -> Clock:
    return Clock()


@pytest.fixture
def leases(wall: Clock, steady: Clock) -> Leases:
    return Leases(LEASE_S, wall, steady)


def _forward(seconds: float, *clocks: Clock) -> None:
    for clock in clocks:
        clock.forward(seconds)


def test_a_lease_runs_out(leases: Leases, wall: Clock, steady: Clock) -> None:
    node = StoredNode(node_id="a")
    leases.renewed(node)
    assert leases.left_s(node) == LEASE_S
    _forward(10, wall, steady)
    assert leases.left_s(node) == 5
    _forward(10, wall, steady)
    assert leases.left_s(node) == -5
    leases.renewed(node)
    assert leases.left_s(node) == LEASE_S


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_set_back_gives_nobody_more(
    leases: Leases, wall: Clock, steady: Clock, restarted: bool
) -> None:
    node = StoredNode(node_id="a")
    leases.renewed(node)
    wall.forward(-3600)
    if restarted:
        leases = Leases(LEASE_S, wall, steady)
    assert leases.left_s(node) == LEASE_S
    _forward(600, wall, steady)
    assert leases.left_s(node) <= 0
    _forward(3000.1, wall, steady)  # the wall clock's hour comes again
    assert leases.left_s(node) <= 0


def test_what_another_process_renewed_is_seen(leases: Leases, wall: Clock, steady: Clock) -> None:
    node = StoredNode(node_id="a")
    leases.renewed(node)
    _forward(20, wall, steady)
    assert leases.left_s(node) < 0
    Leases(LEASE_S, wall, steady).renewed(node)
    assert leases.left_s(node) == LEASE_S


def test_a_node_that_died_before_the_clock_was_set_back_is_not_deployed_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = world.plan(gpus=1)
    world.register("a")
    steady = Clock()
    monkeypatch.setattr(world.service.leases, "_steady", steady)
    world.register("a")
    world.clock.forward(-3600)
    _forward(600, world.clock, steady)
    assert world.client.get("/nodes").json()["nodes"][0]["live"] is False
    assert "lease" in fields(world.put(plan.id, ["a"]))["nodes"]
