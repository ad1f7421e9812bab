"""Drift in the service: reported, raised, planned for, cleared; and not forgotten by a restart."""

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.loop.promise import Promise
from api.service import Service
from api.settings import Settings
from api.store.database import Database
from api.store.tables import StoredRecovery
from profiles.model import ModelProfile
from solver.plans import Plan
from tests.api.in_process import InProcess
from tests.api.world import CONTEXT, Clock, Json, World, fields, profile

FALLEN = ((0, 1), (1, 2))
"""The heads that a task the profile was not measured on is hard for."""
BUDGETS = [64, 256, 1024, 2048, CONTEXT]


def curves(spread: float | None = None) -> Json:
    """2 layers x 8 heads that need more and more: recovery 1 - (1 - share) ** power."""
    shares = np.array(BUDGETS) / CONTEXT
    recovery = [
        [[(1 - (1 - shares) ** (4.0 + h + layer)).tolist()] for h in range(8)] for layer in range(2)
    ]
    form: Json = {
        "form": "recovery_curves",
        "context_tokens": [CONTEXT],
        "budget_tokens": [BUDGETS],
        "recovery": [[[[1.0] * 5]] * 8] * 2,  # an oracle that the selector does not reach
        "selected_recovery": recovery,
    }
    if spread is not None:
        form["selected_spread"] = [[[[spread] * 5]] * 8] * 2
    return {**profile("curves", layers=2, heads=8), "heads": form}


def reported(plan: Plan, batch: Json, lose: float) -> Json:
    """The batch with every head's recovery: as promised, but FALLEN lose `lose` times as much."""
    promise = Promise.of(ModelProfile.model_validate(curves()), plan)
    assert promise is not None
    known = promise.recovery()
    for sample in batch["samples"]:
        layer, device = sample["layer"], sample["device"]
        step = plan.workload.workload
        sample["heads"] = []
        for head, entries in enumerate(plan.layers[layer].heads):
            if all(entry.device != device for entry in entries):
                continue
            blocks = -(-plan.budgets[layer][head] // step.block_tokens)
            n = step.context_blocks
            loss = 1 - known.recovery[layer, head]
            factor = lose if (layer, head) in FALLEN else 1.0
            sample["heads"].append(
                {
                    "head": head,
                    "rows": CONTEXT,
                    "tiles": blocks * (blocks + 1) // 2 + (n - blocks) * blocks,
                    "recovery": 1 - min(1.0, factor * loss),
                }
            )
    return batch


def part_of(plan: Plan, batch: Json) -> Json:
    """The batch as promised, every head's counts by the device's share of it."""
    for sample in reported(plan, batch, lose=1.0)["samples"]:
        entries = plan.layers[sample["layer"]].heads
        for report in sample["heads"]:
            [share] = [e.share for e in entries[report["head"]] if e.device == sample["device"]]
            for count in ("rows", "tiles"):
                report[count] = max(1, round(share * report[count]))
    return batch


def post_round(world: World, plan: Plan, view: Json, lose: float = 1.0) -> None:
    for index, node in enumerate("ab"):
        batch = world.batch(plan, view, node, [index], slow=1.0)
        answer = world.post(reported(plan, batch, lose))
        assert answer.status_code == 200, answer.text
        assert answer.json()["rejected"] == 0
    world.settle()


@pytest.fixture
def plan(world: World) -> Plan:
    found = world.plan(profile=curves(), budget={"policy": "profile", "recovery": 0.9})
    for node in "ab":
        world.register(node)
    return found


def gauges(world: World) -> dict[str, float]:
    text = world.client.get("/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("hplb_recovery")]
    return {line.split("{")[0]: float(line.split()[-1]) for line in lines if 'ment="d"' in line}


def live_plan(world: World) -> Plan:
    return Plan.parse(world.client.get(f"/plans/{world.view()['plan_id']}").content, "live")


def test_a_promise_kept_raises_nothing(world: World, plan: Plan) -> None:
    view = world.deploy(plan, ["a", "b"])
    assert view["recovery_drift"] is None
    for _ in range(3):
        post_round(world, plan, view)
    drift = world.view()["recovery_drift"]
    assert (drift["raised"], drift["rounds"], drift["heads"]) == (False, 3, 16)
    assert drift["observed_mean"] == pytest.approx(drift["expected_mean"])
    assert world.view()["generation"] == 1


def test_drift_is_raised_planned_for_and_cleared(world: World, plan: Plan, clock: Clock) -> None:
    view = world.deploy(plan, ["a", "b"])
    post_round(world, plan, view, lose=4.0)
    assert not world.view()["recovery_drift"]["raised"]
    post_round(world, plan, view, lose=4.0)
    moved = world.view()
    assert (moved["generation"], moved["recovery_drift"]) == (2, None)
    assert moved["decision"].startswith("moved: drift")
    assert moved["history"][1]["reason"] == moved["decision"]
    after = live_plan(world)
    assert after.profile.name == "curves.corrected"
    assert "corrected by what generation 1 of deployment d observed in 2 rounds" in (
        after.profile.source
    )
    for layer, head in FALLEN:
        assert after.budgets[layer][head] > plan.budgets[layer][head]
    others = [place for place in np.ndindex(2, 8) if place not in FALLEN]
    assert all(after.budgets[p[0]][p[1]] == plan.budgets[p[0]][p[1]] for p in others)
    assert gauges(world) == {"hplb_recovery_drift_raises_total": 1.0} | {
        name: value for name, value in gauges(world).items() if name.endswith("_created")
    }

    clock.forward(100)
    for _ in range(3):
        # The task stays as hard as it was: with the larger budgets the promise is kept.
        post_round(world, after, moved, lose=4.0)
    cleared = world.view()
    assert cleared["generation"] == 2
    assert cleared["recovery_drift"]["heads"] == 16
    assert not cleared["recovery_drift"]["raised"]
    assert cleared["recovery_drift"]["observed_min"] >= 0.88
    assert gauges(world)["hplb_recovery_drift_raised"] == 0


def test_without_refine_it_is_told_everywhere_and_nothing_moves(world: World, plan: Plan) -> None:
    view = world.deploy(plan, ["a", "b"], refine=False)
    for _ in range(2):
        post_round(world, plan, view, lose=4.0)
    drift = world.view()["recovery_drift"]
    assert (drift["raised"], drift["heads_drifted"], drift["reason"]) == (True, 2, None)
    assert {(h["layer"], h["head"]) for h in drift["worst"]} == set(FALLEN)
    assert all(h["observed"] < h["expected"] - 0.05 for h in drift["worst"])
    assert drift["since"].startswith("2027-")
    shown = gauges(world)
    assert shown["hplb_recovery_drift_raised"] == 1
    assert shown["hplb_recovery_drifted_heads"] == 2
    assert shown["hplb_recovery_observed_min"] == pytest.approx(drift["observed_min"])
    assert shown["hplb_recovery_expected_mean"] == pytest.approx(drift["expected_mean"])
    assert (world.view()["generation"], world.view()["decision"]) == (1, None)
    assert world.view()["drift"] == pytest.approx(1)  # the clock's drift is another thing


def test_what_prompts_differ_by_anyway_is_no_drift(world: World) -> None:
    plan = world.plan(profile=curves(spread=0.5))
    for node in "ab":
        world.register(node)
    view = world.deploy(plan, ["a", "b"])
    for _ in range(3):
        post_round(world, plan, view, lose=4.0)
    assert world.view()["recovery_drift"]["heads_drifted"] == 0


def test_a_restart_knows_what_was_raised_and_finishes_what_it_asked_for(
    world: World, plan: Plan, settings: Settings, clock: Clock
) -> None:
    view = world.deploy(plan, ["a", "b"], refine=False)
    for _ in range(2):
        post_round(world, plan, view, lose=4.0)
    before = world.view()["recovery_drift"]
    clock.forward(50)
    world.service.elected.stop()
    world.service.elected.join(30)
    reopened = Service.make(settings, Database.open(settings.database_url), clock, InProcess)
    with TestClient(create_app(service=reopened), "http://127.0.0.1") as client:
        again = World(client, reopened, clock)
        assert again.view()["recovery_drift"] == before
        post_round(again, plan, view, lose=4.0)
        now = again.view()["recovery_drift"]
        assert (now["raised"], now["since"], now["rounds"]) == (True, before["since"], 3)


def test_only_a_window_of_the_live_generation_is_kept(settings: Settings, clock: Clock) -> None:
    small = settings.model_copy(update={"drift_window": 2})
    service = Service.make(small, Database.open(settings.database_url), clock, InProcess)
    with TestClient(create_app(service=service), "http://127.0.0.1") as client:
        world = World(client, service, clock)
        plan = world.plan(profile=curves())
        for node in "ab":
            world.register(node)
        view = world.deploy(plan, ["a", "b"], refine=False)
        for lose in (4.0, 4.0, 1.0, 1.0):
            post_round(world, plan, view, lose)
        drift = world.view()["recovery_drift"]
        assert (drift["rounds"], drift["heads_drifted"], drift["raised"]) == (2, 0, False)
        view = world.deploy(plan, ["a", "b"], refine=False, rounds=4)
        assert view["recovery_drift"] is None
        post_round(world, plan, view)
        with service.database.read() as session:
            kept = session.query(StoredRecovery).all()
        assert {(row.generation, row.node_id) for row in kept} == {(2, "a"), (2, "b")}
        assert len(kept) == 2


def test_a_profile_without_curves_promises_nothing(world: World) -> None:
    plan = world.plan()
    world.register("a")
    world.register("b")
    view = world.deploy(plan, ["a", "b"])
    for index, node in enumerate("ab"):
        batch = world.batch(plan, view, node, [index])
        for sample in batch["samples"]:
            mine = [
                head
                for head, entries in enumerate(plan.layers[sample["layer"]].heads)
                if entries[0].device == sample["device"]
            ]
            budget = plan.budgets[sample["layer"]][mine[0]] // 64
            tiles = budget * (budget + 1) // 2 + (64 - budget) * budget
            sample["heads"] = [{"head": mine[0], "rows": 1, "tiles": tiles, "recovery": 0.1}]
        assert world.post(batch).json()["rejected"] == 0
    world.settle()
    drift = world.view()["recovery_drift"]
    assert drift["raised"] is False
    assert drift["reason"] == "profile 'small' (budgets) promises no recovery"
    assert gauges(world) == {}


def test_a_divided_head_waits_for_every_node_with_a_part_of_it(world: World) -> None:
    how = {"divisible": True, "copies": "free"}
    plan = world.plan(profile=curves(), gpus=3, method="auto", placement=how)
    for node in "abc":
        world.register(node)
    view = world.deploy(plan, ["a", "b", "c"], refine=False)
    heads = [{entry.device for entry in head} for layer in plan.layers for head in layer.heads]
    assert any(0 in devices and len(devices) > 1 for devices in heads)  # else this shows nothing
    for expected, devices in ((sum(0 not in devices for devices in heads), (1, 2)), (16, (0,))):
        for device in devices * 2:
            batch = world.batch(plan, view, "abc"[device], [device], slow=1.0)
            assert world.post(part_of(plan, batch)).json()["rejected"] == 0
        world.settle()
        assert world.view()["recovery_drift"]["heads"] == expected


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"head": 8}, "head", "not 8"),
        ({"head": -1}, "head", "greater than or equal to 0"),
        ({"recovery": 1.01}, "recovery", "less than or equal to 1"),
        ({"recovery": -0.01}, "recovery", "greater than or equal to 0"),
        ({"rows": 0}, "rows", "greater than or equal to 1"),
        ({"tiles": 0}, "tiles", "greater than or equal to 1"),
        ({"budget": 1}, "budget", "not permitted"),
    ],
)
def test_reports_that_cannot_be(
    world: World, plan: Plan, change: dict[str, Any], field: str, says: str
) -> None:
    view = world.deploy(plan, ["a", "b"], refine=False)
    batch = reported(plan, world.batch(plan, view, "a", [0]), 1.0)
    batch["samples"][1]["heads"][0] |= change
    found = fields(world.post(batch))
    assert says in found[f"samples.1.heads.0.{field}"]


def test_a_head_twice_and_one_that_is_elsewhere(world: World, plan: Plan) -> None:
    view = world.deploy(plan, ["a", "b"], refine=False)
    twice = reported(plan, world.batch(plan, view, "a", [0]), 1.0)
    twice["samples"][0]["heads"].append(twice["samples"][0]["heads"][0])
    count = len(twice["samples"][0]["heads"])
    assert "comes twice" in fields(world.post(twice))[f"samples.0.heads.{count - 1}.head"]
    other = reported(plan, world.batch(plan, view, "b", [1]), 1.0)["samples"][0]["heads"]
    wrong = reported(plan, world.batch(plan, view, "a", [0]), 1.0)
    wrong["samples"][0]["heads"] = other
    assert "device 0 computes heads" in fields(world.post(wrong))["samples.0.heads.0.head"]


def test_counts_of_another_plan_are_not_believed(world: World, plan: Plan) -> None:
    view = world.deploy(plan, ["a", "b"], refine=False)
    for change in ({"tiles": 10_000}, {"rows": CONTEXT + 1}):
        batch = reported(plan, world.batch(plan, view, "a", [0]), 1.0)
        batch["samples"][0]["heads"][0] |= change
        receipt = world.post(batch).json()
        assert (receipt["accepted"], receipt["rejected"]) == (1, 1)


def test_decodes_report_no_recovery(world: World) -> None:
    plan = world.plan(phase="decode", batch_size=4)
    world.register("a")
    world.register("b")
    view = world.deploy(plan, ["a", "b"])
    batch = world.batch(plan, view, "a", [0])
    batch["samples"][0]["heads"] = [{"head": 0, "rows": 1, "tiles": 1, "recovery": 0.5}]
    assert "whole prompts" in fields(world.post(batch))["samples.0.heads"]


def test_measuring_that_goes_on_is_asked_for_and_handed_on(world: World) -> None:
    plan = world.plan()
    world.register("a", 2)
    assert world.deploy(plan, ["a"])["every_s"] is None
    assert "every_s" not in (world.assigned("a") or {})
    view = world.deploy(plan, ["a"], every_s=2.5)
    assert (view["every_s"], view["generation"]) == (2.5, 2)
    assert (world.assigned("a") or {})["every_s"] == 2.5
    assert world.deploy(plan, ["a"], every_s=2.5)["generation"] == 2
    for wrong in (0, -1, 1e9):
        assert "every_s" in fields(world.put(plan.id, ["a"], every_s=wrong))
