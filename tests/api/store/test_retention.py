"""What is kept by count and by age, and what is kept because it is used."""

from collections.abc import Callable

import pytest
from sqlalchemy import func, select

from api.store import plan_store, rate_store, retention, solve_store
from api.store.retention import YOUNG_S, Keep, RetentionPolicy
from api.store.tables import (
    ProfileContent,
    StoredBatch,
    StoredGeneration,
    StoredPlan,
    StoredProfile,
    StoredRates,
    StoredRound,
    Table,
)
from profiles.catalogue import device_profile
from profiles.cost.roofline import roofline
from tests.api.live import LATER, until_ended
from tests.api.slow_solver import SlowSolver
from tests.api.world import World, plan_body, profile

HOUR_S = 3600.0


def _prune(world: World, **keep: Keep) -> dict[str, int]:
    deleted = retention.prune(world.service.database, RetentionPolicy(**keep), world.clock())
    return dict(deleted)


def _values(world: World, column: object) -> list[object]:
    with world.service.database.read() as session:
        return sorted(session.scalars(select(column)))  # type: ignore[call-overload, type-var]


def _plans(world: World, *contexts: int) -> list[str]:
    """Plans made an hour apart, the first one first."""
    made = []
    for context in contexts:
        made.append(world.plan(context_tokens=context).id)
        world.clock.forward(HOUR_S)
    return made


@pytest.mark.parametrize(
    ("keep", "left"),
    [(Keep(), 4), (Keep(most=2), 2), (Keep(seconds=4.5 * HOUR_S), 3), (Keep(1, 4.5 * HOUR_S), 1)],
)
def test_plans_by_count_and_by_age(world: World, keep: Keep, left: int) -> None:
    made = _plans(world, 1024, 2048, 3072, 4096)
    world.clock.forward(YOUNG_S)
    deleted = _prune(world, plans=keep)
    assert deleted.get("plans", 0) == 4 - left
    assert _values(world, StoredPlan.id) == sorted(made[4 - left :])
    assert world.client.get(f"/plans/{made[0]}").status_code == (200 if left == 4 else 404)
    # An equal request is solved anew, and its plan is there.
    again = world.plan(context_tokens=1024)
    assert again.id == made[0]
    assert world.client.get(f"/plans/{made[0]}").status_code == 200


def test_a_plan_just_made_is_not_one_too_many(world: World) -> None:
    made = [world.plan(context_tokens=context).id for context in (1024, 2048)]
    assert _prune(world, plans=Keep(most=1)) == {}
    assert _values(world, StoredPlan.id) == sorted(made)


def test_what_a_deployment_runs_or_was_asked_to_keep_stays(world: World) -> None:
    start, unused = _plans(world, 1024, 2048)
    moved = world.plan(placement={"current_plan": start}, method="auto")
    world.clock.forward(HOUR_S)
    world.register("a", 2)
    world.deploy(moved, ["a"])
    world.clock.forward(2 * YOUNG_S)
    _prune(world, plans=Keep(seconds=1))
    assert _values(world, StoredPlan.id) == sorted({start, moved.id})
    with world.service.database.read() as session:
        assert plan_store.request_of(session, moved.id).placement.current_plan == start
    assert unused not in _values(world, StoredPlan.id)


def test_generations_go_with_what_was_measured_of_them(world: World) -> None:
    plan = world.plan()
    world.register("a", 2)
    for rounds in (1, 2, 3, 4):
        view = world.deploy(plan, ["a"], rounds=rounds, refine=False)
        assert world.post(world.batch(plan, view, "a", [0, 1])).status_code == 200
    shown = world.view()
    deleted = _prune(world, generations=Keep(most=2))
    assert deleted == {"generations": 2, "batches": 2}
    assert _values(world, StoredGeneration.generation) == [3, 4]
    assert (
        _values(world, StoredBatch.generation) == _values(world, StoredRound.generation) == [3, 4]
    )
    after = world.view()
    assert [entry["generation"] for entry in after["history"]] == [3, 4]
    assert after["measured"] == shown["measured"] is not None
    assert world.client.get("/deployments/d", params={"generation": 1}).status_code == 404


def test_the_live_generation_stays_however_old(world: World) -> None:
    plan = world.plan()
    world.register("a", 2)
    world.deploy(plan, ["a"])
    world.clock.forward(100 * HOUR_S)
    assert _prune(world, generations=Keep(most=1, seconds=1)) == {}
    assert world.client.get("/deployments/d").status_code == 200


def test_a_nodes_newest_batches_are_remembered(world: World) -> None:
    plan = world.plan()
    for node in "ab":
        world.register(node, 1)
    view = world.deploy(plan, ["a", "b"], refine=False)
    sent = {
        node: [world.batch(plan, view, node, [index]) for _ in range(count)]
        for index, (node, count) in enumerate((("a", 5), ("b", 1)))
    }
    for batch in [*sent["a"], *sent["b"]]:
        assert world.post(batch).status_code == 200
    assert _prune(world, batches=Keep(most=2)) == {"batches": 3}
    for batch in [*sent["a"][-2:], *sent["b"]]:
        assert world.post(batch).json()["duplicate"] is True


def test_rates_in_force_stay(world: World) -> None:
    rates = roofline(device_profile("h200"), "prefill")
    for factor in (1.0, 2.0, 3.0):
        slower = {name: factor * s for name, s in rates.seconds_per.items()}
        with world.service.database.write() as session:
            rate_store.keep(
                session, rates.model_copy(update={"seconds_per": slower}), world.clock()
            )
    world.clock.forward(HOUR_S)
    in_force = world.client.get("/cost-models").json()
    assert _prune(world, rates=Keep(most=1, seconds=1)) == {"rates": 2}
    assert world.client.get("/cost-models").json() == in_force
    with world.service.database.read() as session:
        assert session.scalar(select(func.count()).select_from(StoredRates)) == 1


def test_profiles_contents_go_with_their_last_use(world: World) -> None:
    for name in ("one", "two"):
        assert world.client.put(f"/profiles/{name}", json=profile(name)).status_code == 200
        world.clock.forward(HOUR_S)
    planned = world.plan(profile="one", workloads=None)
    assert _prune(world, profiles=Keep(most=1)) == {"profiles": 1}
    assert _values(world, StoredProfile.name) == ["two"]
    assert len(_values(world, ProfileContent.digest)) == 2, "a plan was made from the other"
    world.clock.forward(2 * YOUNG_S)
    assert _prune(world, plans=Keep(seconds=1)) == {"plans": 1, "profile_contents": 1}
    assert world.client.get(f"/plans/{planned.id}").status_code == 404


def test_a_profile_of_a_workload_alone_is_in_use(world: World) -> None:
    steps = [{"context_tokens": 1024}, {"context_tokens": 2048, "profile": profile("other")}]
    plan = world.plan(workloads=steps, context_tokens=...)
    world.clock.forward(HOUR_S)
    assert _prune(world) == {}
    assert world.plan(workloads=steps, context_tokens=..., fresh=True).id == plan.id


@pytest.fixture
def every_table() -> Callable[[World], dict[str, int]]:
    def count(world: World) -> dict[str, int]:
        with world.service.database.read() as session:
            return {
                name: session.execute(select(func.count()).select_from(table)).scalar() or 0
                for name, table in Table.metadata.tables.items()
            }

    return count


def test_nothing_goes_without_a_limit(
    world: World, every_table: Callable[[World], dict[str, int]]
) -> None:
    plan = world.plan()
    world.register("a", 2)
    view = world.deploy(plan, ["a"], refine=False)
    world.post(world.batch(plan, view, "a", [0, 1]))
    world.client.put("/profiles/small", json=profile())
    world.settle()
    before = every_table(world)
    world.clock.forward(10_000 * HOUR_S)
    assert _prune(world) == {}
    assert every_table(world) == before


def test_what_a_promised_solve_is_made_from_stays(world: World, slow: SlowSolver) -> None:
    asked = plan_body(method="auto", profile=profile("asked-for"))
    solve = world.client.post("/plan", json=asked, headers=LATER).json()["id"]
    slow.wait_for_start()
    assert _prune(world, plans=Keep(seconds=1)) == {}
    slow.finish()
    assert until_ended(world.client, solve).status_code == 200
    world.client.delete(f"/plans/{world.client.get(f'/plans/{solve}').json()['id']}")
    with world.service.database.write() as session:
        solve_store.forget(session, solve)
    assert _prune(world, plans=Keep(seconds=1)) == {"profile_contents": 1}
