"""Reports of an engine's steps, of any length and phase: judged on the work reported."""

import random
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from api.client.bodies import MeasurementBatch
from api.store import plan_store
from api.store.tables import StoredSteps
from profiles.catalogue import catalogue_rates
from profiles.cost.rates import Rates
from profiles.cost.work import FEATURES, Phase
from solver.planning.predict import shard_work
from solver.plans import Plan
from solver.request import WorkloadOptions
from tests.api.engine import Device, mixed
from tests.api.world import Json, World, fields


@pytest.fixture
def live(world: World) -> tuple[Plan, Json]:
    """A plan with slots on an engine's two ranks, left alone by the refine loop."""
    plan = world.plan(device_type="cpu", method=..., placement={"slots": 3, "divisible": True})
    for rank in range(2):
        world.register(f"e-{rank}", ["cpu"])
    return plan, world.deploy(plan, ["e-0", "e-1"], refine=False)


def _rates(world: World, phase: Phase) -> Rates:
    told = world.client.get("/cost-models").json()["rates"]
    found = next(r for r in told if (r["device"], r["phase"]) == ("cpu", phase))
    return Rates.model_validate({k: v for k, v in found.items() if k != "version"})


def test_a_refit_of_mixed_steps_predicts_other_steps(world: World, live: tuple[Plan, Json]) -> None:
    plan, view = live
    device, draw = Device(plan), random.Random(1)
    for _ in range(3):
        for batch in device.batches(view, mixed(draw, 24)):
            answer = world.post(batch)
            assert answer.status_code == 200, answer.text
            assert answer.json()["rejected"] == 0
            assert answer.json()["accepted"] == len(batch["samples"])
    world.settle()
    before = {phase: catalogue_rates(["cpu"], phase)["cpu"] for phase in ("prefill", "decode")}
    for phase in ("prefill", "decode"):
        learnt = _rates(world, phase)
        assert learnt.samples > 100
        work = np.concatenate(
            [
                units[units.any(axis=1)]
                for lengths in mixed(random.Random(2), 30)
                for of, _, units in device.work(0, lengths)
                if of == phase
            ]
        )
        truth = work @ device.rates[phase]
        assert np.abs(learnt.seconds(work) / truth - 1).max() < 0.05
        assert np.abs(before[phase].seconds(work) / truth - 1).min() > 0.2


def test_error_and_drift_are_judged_on_the_work_reported(
    world: World, live: tuple[Plan, Json]
) -> None:
    plan, view = live
    slower = dict.fromkeys(FEATURES, 2.5)
    device = Device(plan, slower)
    assert world.view()["measured"] is None
    steps = mixed(random.Random(3), 16)
    first, second = device.batches(view, steps)
    world.clock.forward(1)
    assert world.post(first).status_code == 200
    world.settle()
    # Rank 1 waits for rank 0 in every layer: of one alone no step's makespan is known.
    assert world.view()["measured"] is None
    assert world.post(second).status_code == 200
    world.settle()
    found = world.view()
    assert found["drift"] == pytest.approx(2.5, rel=0.02)
    assert found["prediction_error"] == pytest.approx(0.6, abs=0.02)
    assert found["measured"]["timing"] == "concurrent"
    ratio = found["measured"]["makespan_s"] / found["predicted"]["makespan_s"]
    assert ratio == pytest.approx(found["drift"])
    # The plan's own workload is drawn, and was not what ran.
    assert world.client.get("/deployments/d/picture").status_code == 404
    totals = [sum(s["seconds"] for s in batch["samples"]) for batch in (first, second)]
    parts = len(first["steps"])
    loads = np.array(found["measured"]["device_loads_s"], dtype=float)
    assert loads.sum(axis=0) * parts == pytest.approx(totals)
    # The rates in force have learnt meanwhile; the generation is judged by those of its day.
    for batch in device.batches(view, steps):
        world.post(batch)
    world.settle()
    assert world.view()["drift"] == pytest.approx(2.5, rel=0.02)


def test_the_traffic_is_learnt_by_time(world: World, live: tuple[Plan, Json]) -> None:
    plan, view = live
    device = Device(plan)
    assert world.view()["traffic"] is None
    long_prompt = [[(512 * n, 512 * (n + 1))] for n in range(8)]
    chats = [[(700, 701)] * 5] * 40
    for batch in device.batches(view, [*long_prompt, *chats]):
        assert world.post(batch).status_code == 200
    found = world.view()["traffic"]
    assert sum(each["share"] for each in found) == pytest.approx(1, abs=0.06)
    assert found == sorted(found, key=lambda each: -each["share"])
    (decode,) = (each for each in found if each["phase"] == "decode")
    assert (decode["context_tokens"], decode["batch_size"]) == (700, 5)
    # A chunk's rows have as many keys as those of a prompt of what it had and has: 512 to 7,680.
    prefills = sorted(
        (each["context_tokens"], each["share"]) for each in found if each["phase"] == "prefill"
    )
    assert [context for context, _ in prefills][-3:] == [1500, 3100, 6100]
    assert prefills[-1][1] == max(share for _, share in prefills)


def test_an_engine_is_planned_for_with_the_slots_that_it_began_with(world: World) -> None:
    asked = {"device_type": "cpu", "method": ..., "placement": {"slots": "auto"}}
    plan = world.plan(**asked)
    chat = WorkloadOptions(context_tokens=700, phase="decode", batch_size=5)
    again = world.again(plan.id, [chat])
    assert again.id != plan.id
    with world.service.database.read() as session:
        found = [plan_store.request_of(session, each.id) for each in (plan, again)]
    assert [each.placement.slots for each in found] == ["auto", plan.slots]
    assert again.slots == plan.slots


def test_rounds_of_a_fixed_context_are_judged_as_ever(
    world: World, live: tuple[Plan, Json]
) -> None:
    plan, view = live
    for rank in range(2):
        assert world.post(world.batch(plan, view, f"e-{rank}", [rank], 4.0)).status_code == 200
    found = world.view()
    assert found["measured"]["rounds"] == 1
    predicted_s = found["predicted"]["makespan_s"]
    assert found["drift"] == pytest.approx(found["measured"]["makespan_s"] / predicted_s)
    assert found["traffic"] is None


def _broken(batch: Json, **changes: Any) -> Json:
    return {k: v for k, v in {**batch, "batch_id": uuid4().hex, **changes}.items() if v is not ...}


def test_what_is_no_steps_of_an_engine_is_refused(world: World, live: tuple[Plan, Json]) -> None:
    plan, view = live
    batch, _ = Device(plan).batches(view, [[(0, 300)]])
    samples = batch["samples"]
    assert "run" in fields(world.post(_broken(batch, run=...)))
    stepless = [{k: v for k, v in s.items() if k != "step"} for s in samples]
    assert "samples" in fields(world.post(_broken(batch, samples=stepless)))
    some = [*samples[:-1], stepless[-1]]
    assert f"samples.{len(some) - 1}.step" in fields(world.post(_broken(batch, samples=some)))
    beyond = [*samples[:-1], {**samples[-1], "step": 1}]
    told = fields(world.post(_broken(batch, samples=beyond)))
    assert told[f"samples.{len(beyond) - 1}.step"] == "the batch has steps 0 to 0; "
    twice = fields(world.post(_broken(batch, samples=[*samples, samples[0]])))
    assert "all in step 0" in twice["samples"]
    rounds = world.batch(plan, view, "e-0", [0])
    assert "samples" in fields(world.post({**rounds, "samples": samples}))
    with world.service.database.read() as session:
        assert session.query(StoredSteps).count() == 0


def test_steps_travel_in_columns_too(world: World, live: tuple[Plan, Json]) -> None:
    plan, view = live
    steps = mixed(random.Random(4), 8)
    for batch in Device(plan).batches(view, steps):
        body = MeasurementBatch.model_validate(batch).in_columns().model_dump_json()
        assert "columns" in body
        answer = world.client.post(
            "/measurements", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.json()["accepted"] == len(batch["samples"]), answer.text
    found = world.view()["measured"]
    assert found["rounds"] == 1
    assert found["makespan_s"] > 0


def test_work_faster_than_the_chip_is_not_believed(world: World, live: tuple[Plan, Json]) -> None:
    plan, view = live
    batch, _ = Device(plan).batches(view, [[(0, 2000)]])
    batch["samples"][0]["seconds"] = 1e-9
    batch["samples"][1]["work"] = {}
    receipt = world.post(batch).json()
    assert receipt["rejected"] == 2
    assert receipt["accepted"] == len(batch["samples"]) - 2


def test_a_step_of_a_plan_is_predicted_as_the_plan_is(live: tuple[Plan, Json]) -> None:
    """Whole prompts of the plan's own context: the engine's counts are the planner's."""
    plan, _ = live
    context = plan.workload.context_tokens
    for rank in range(2):
        ((phase, _, work),) = Device(plan).work(rank, [(0, context)])
        assert phase == "prefill"
        for layer, units in enumerate(work):
            expected = shard_work(plan, layer)[rank]
            for place, name in enumerate(FEATURES):
                if name != "projection_flops":
                    assert units[place] == pytest.approx(expected[place]), name


def test_the_loop_plans_for_the_traffic_it_was_told(world: World) -> None:
    """Chats on a plan that was made for long prompts."""
    plan = world.plan(device_type="cpu", method=..., placement={"slots": 3, "divisible": True})
    for rank in range(2):
        world.register(f"e-{rank}", ["cpu"])
    view = world.deploy(plan, ["e-0", "e-1"])
    world.clock.forward(1)
    device = Device(plan)
    chats = [[(1500, 1501)] * 8] * 40
    for steps in ([[(0, 400)], *chats], [[(0, 400)], *chats]):
        for batch in device.batches(view, steps):
            assert world.post(batch).status_code == 200
            world.settle()
    found = world.view(), world.client.get("/plans").json()["plans"]
    assert found[0]["decision"].startswith(("held: predicted", "moved: predicted"))
    newest = Plan.parse(world.client.get(f"/plans/{found[1][0]['id']}").content, "newest")
    # Its own workload comes first, for budgets are made for it, and hardly counts.
    assert newest.workload == plan.workload
    assert newest.weight < 0.02
    served = [(o.workload.phase, o.workload.context_tokens) for o in newest.other_workloads]
    assert served[0] == ("decode", 1500)
    assert newest.other_workloads[0].workload.batch_size == 8
    assert newest.other_workloads[0].weight > 0.5
