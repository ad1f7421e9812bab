"""Drift of an engine in the service: reported step by step, judged by context, planned for."""

from typing import Any

import numpy as np
import pytest

from api.client.bodies import MeasurementBatch
from api.loop.engine_rows import EngineRows
from api.loop.promise import Promise
from api.settings import Settings
from api.store.tables import StoredWatched
from executor.inference.watched_rows import HeldRows
from profiles.cost.work import Floats, Phase
from profiles.model import ModelProfile
from solver.plans import Plan
from tests.api.engine import Device, Lengths
from tests.api.world import CONTEXT, Json, World, fields, profile

FALLEN = ((0, 6), (1, 7))
"""The heads that a task the profile was not measured on is hard for."""
MEASURED = (1024, CONTEXT)
LONG: list[Lengths] = [[(0, CONTEXT)], [(CONTEXT - 512, CONTEXT)], [(CONTEXT - 1, CONTEXT)] * 3]
SHORT: list[Lengths] = [[(0, 900)], [(600, 1000), (0, 800)], [(999, 1000)] * 5]


def curves() -> Json:
    """2 layers x 8 heads that need more and more, measured at two contexts."""
    shares = np.geomspace(1 / 64, 1, 13)
    power = np.array([[0.3 - 0.03 * h - 0.02 * layer for h in range(8)] for layer in range(2)])
    # A row at position p recovers (budget / p) ** power: its mean over a prompt.
    of_prompts = [
        [((shares**a - a * shares) / (1 - a)).tolist() for a in layer] for layer in power.tolist()
    ]
    form: Json = {
        "form": "recovery_curves",
        "context_tokens": list(MEASURED),
        "budget_tokens": [[round(share * c) for share in shares] for c in MEASURED],
        "recovery": [[[[1.0] * 13] * 2] * 8] * 2,  # an oracle that the selector does not reach
        "selected_recovery": [[[curve, curve] for curve in layer] for layer in of_prompts],
    }
    return {**profile("curves", layers=2, heads=8), "heads": form}


class Recovers:
    """As promised by a profile at a plan's budgets; of contexts beyond `beyond` FALLEN lose `lose`
    times as much."""

    def __init__(self, plan: Plan, lose: float, beyond: int = 0, most: int = CONTEXT) -> None:
        promise = Promise.of(ModelProfile.model_validate(curves()), plan)
        assert promise is not None
        self.promise, self.lose, self.beyond, self.most = promise, lose, beyond, most

    def __call__(self, phase: Phase, layer: int, rows: HeldRows) -> Floats:
        number, unknown = np.arange(len(rows.rows)), np.full(len(rows.rows), np.nan)
        where = np.full_like(rows.head, layer), rows.head, rows.first, rows.last, rows.rows
        of_phase = np.full(len(rows.rows), phase == "prefill")
        told = EngineRows(number, number, of_phase, *where, unknown, unknown)
        known = self.promise.of_rows(told)
        found = np.ones(len(rows.rows))
        found[known.batch] = known.promised
        low = np.array([(layer, head) in FALLEN for head in rows.head.tolist()])
        low &= (rows.last > self.beyond) & (rows.last <= self.most)
        return np.where(low, 1 - np.minimum(self.lose * (1 - found), 1), found)


WINDOW = 4


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"drift_window": WINDOW})


@pytest.fixture
def plan(world: World) -> Plan:
    asked = {"slots": 4, "divisible": True}
    found = world.plan(
        profile=curves(),
        device_type="cpu",
        method=...,
        placement=asked,
        budget={"policy": "profile", "recovery": 0.9},
    )
    for rank in range(2):
        world.register(f"e-{rank}", ["cpu"])
    return found


def serve(world: World, device: Device, view: Json, steps: list[Lengths]) -> None:
    for batch in device.batches(view, steps):
        answer = world.post(batch)
        assert answer.status_code == 200, answer.text
        assert answer.json()["rejected"] == 0
    world.settle()


def by_requests(view: Json) -> dict[tuple[str, int], Json]:
    return {(of["phase"], of["context_tokens"]): of for of in view["recovery_drift"]["requests"]}


def test_a_promise_kept_at_every_length_raises_nothing(world: World, plan: Plan) -> None:
    view = world.deploy(plan, ["e-0", "e-1"])
    assert view["recovery_drift"] is None
    device = Device(plan, recovers=Recovers(plan, 1.0))
    for _ in range(3):
        serve(world, device, view, [*SHORT, *LONG])
    drift = world.view()["recovery_drift"]
    assert (drift["raised"], drift["heads"], drift["heads_drifted"]) == (False, 16, 0)
    assert drift["rounds"] == 3
    assert drift["observed_mean"] == pytest.approx(drift["expected_mean"], abs=1e-6)
    found = by_requests(world.view())
    assert {("prefill", 1024), ("prefill", 4096), ("decode", 1024), ("decode", 4096)} <= set(found)
    # Late rows alone, and the newest of all, recover less than a whole prompt.
    assert found["decode", 4096]["expected_mean"] < found["prefill", 4096]["expected_mean"]


def test_short_requests_hide_no_drift_of_long_ones(world: World, plan: Plan) -> None:
    view = world.deploy(plan, ["e-0", "e-1"], refine=False)
    device = Device(plan, recovers=Recovers(plan, 3.0, beyond=2048))
    for _ in range(2):
        serve(world, device, view, [*SHORT * 10, *LONG])
    drift = world.view()["recovery_drift"]
    assert (drift["raised"], drift["heads"], drift["heads_drifted"]) == (True, 16, 2)
    assert {(h["layer"], h["head"]) for h in drift["worst"]} == set(FALLEN)
    assert {h["context_tokens"] for h in drift["worst"]} == {4096}
    raised = {kind for kind, of in by_requests(world.view()).items() if of["raised"]}
    assert raised == {("prefill", 4096), ("decode", 4096)}
    metrics = world.client.get("/metrics").text
    assert 'hplb_recovery_drift_raised{deployment="d"} 1.0' in metrics
    # Short ones alone clear nothing, and the long ones do.
    short = Device(plan, recovers=Recovers(plan, 1.0))
    for _ in range(WINDOW + 1):
        serve(world, short, view, SHORT)
    drift = world.view()["recovery_drift"]
    assert drift["raised"]
    for _ in range(2):
        serve(world, short, view, LONG)
    assert not world.view()["recovery_drift"]["raised"]


def test_drift_of_what_is_served_is_planned_for_and_cleared(world: World, plan: Plan) -> None:
    """Maybe head by head, for one rank tells before the other; then the promise is kept, though the
    task stays as hard as it was."""
    view, live = world.deploy(plan, ["e-0", "e-1"]), plan
    for _ in range(6):
        recovers = Recovers(live, 2.0, beyond=2048)
        serve(world, Device(live, recovers=recovers), view, [*SHORT, *LONG])
        view = world.view()
        live = Plan.parse(world.client.get(f"/plans/{view['plan_id']}").content, "live")
        world.clock.forward(100)
    moves = [each["reason"] for each in view["history"][1:]]
    assert moves
    assert all(reason.startswith("moved: drift, least recovery") for reason in moves), moves
    assert live.profile.name == "curves.corrected"
    assert "of deployment d observed in service" in live.profile.source
    assert live.slots == plan.slots
    for layer, head in np.ndindex(2, 8):
        more = live.budgets[layer][head] - plan.budgets[layer][head]
        assert more > 0 if (layer, head) in FALLEN else more == 0
    drift = view["recovery_drift"]
    assert (drift["raised"], drift["heads"]) == (False, 16)


def test_drift_of_other_contexts_than_are_planned_for_says_so(world: World, plan: Plan) -> None:
    view = world.deploy(plan, ["e-0", "e-1"])
    device = Device(plan, recovers=Recovers(plan, 3.0, most=1024))
    for _ in range(2):
        serve(world, device, view, SHORT)
    drift = world.view()["recovery_drift"]
    assert drift["raised"]
    assert world.view()["decision"] == (
        "held: drift of requests of up to 1,024 tokens says nothing of 4,096, which the budgets "
        "are made for: ask for a plan for what is served"
    )
    assert world.view()["generation"] == 1


def test_requests_within_the_budgets_prove_nothing(world: World, plan: Plan) -> None:
    view = world.deploy(plan, ["e-0", "e-1"])
    device = Device(plan, recovers=Recovers(plan, 3.0))
    for _ in range(2):
        serve(world, device, view, [[(0, 64)], [(20, 21)] * 4])
    drift = world.view()["recovery_drift"]
    assert (drift["raised"], drift["heads"], drift["requests"]) == (False, 0, None)
    assert drift["reason"] == "no request was longer than the budgets, which lost nothing of it"


def test_what_is_watched_travels_in_columns_and_a_window_of_each_layer_is_kept(
    world: World, plan: Plan
) -> None:
    view = world.deploy(plan, ["e-0", "e-1"], refine=False)
    device = Device(plan, recovers=Recovers(plan, 1.0))
    for number in range(WINDOW + 2):
        for batch in device.batches(view, LONG):
            # One layer at a time.
            for sample in batch["samples"]:
                if sample["layer"] != number % 2:
                    sample.pop("watched", None)
            body = MeasurementBatch.model_validate(batch).in_columns()
            assert body.columns is not None
            assert body.columns.watched is not None
            sent = [len(s.get("watched", ())) for s in batch["samples"]]
            assert len(body.columns.watched.rows) == sum(sent)
            answer = world.client.post(
                "/measurements",
                content=body.model_dump_json(),
                headers={"Content-Type": "application/json"},
            )
            assert answer.json()["accepted"] == len(batch["samples"]), answer.text
    world.settle()
    assert world.view()["recovery_drift"]["heads"] == 16
    with world.service.database.read() as session:
        kept = session.query(StoredWatched).all()
        # Half of the batches looked at each layer.
        assert len(kept) == 2 * 2 * (WINDOW + 2) // 2
    for number in range(2 * WINDOW):
        serve(world, device, view, LONG[: 1 + number % 2])
    with world.service.database.read() as session:
        kept = session.query(StoredWatched).all()
        assert len(kept) == 2 * 2 * WINDOW
    world.deploy(plan, ["e-0", "e-1"], refine=False, rounds=4)
    serve(world, device, world.view(), LONG)
    with world.service.database.read() as session:
        assert {row.generation for row in session.query(StoredWatched)} == {2}


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"head": 8}, "head", "not 8"),
        ({"first": 4096}, "last", "are none"),
        ({"first": -1}, "first", "greater than or equal to 0"),
        ({"rows": 0}, "rows", "greater than or equal to 1"),
        ({"recovery": 1.01}, "recovery", "less than or equal to 1"),
        ({"tiles": 3}, "tiles", "not permitted"),
    ],
)
def test_rows_that_cannot_be(
    world: World, plan: Plan, change: dict[str, Any], field: str, says: str
) -> None:
    view = world.deploy(plan, ["e-0", "e-1"], refine=False)
    batch, _ = Device(plan, recovers=Recovers(plan, 1.0)).batches(view, LONG)
    batch["samples"][0]["watched"][0] |= change
    assert says in fields(world.post(batch))[f"samples.0.watched.0.{field}"]


@pytest.mark.parametrize(
    "change", [{"last": CONTEXT + 1}, {"rows": CONTEXT + 1}, {"first": CONTEXT - 10}]
)
def test_rows_that_no_step_of_these_had_are_not_believed(
    world: World, plan: Plan, change: dict[str, Any]
) -> None:
    view = world.deploy(plan, ["e-0", "e-1"], refine=False)
    batches = Device(plan, recovers=Recovers(plan, 1.0)).batches(view, LONG)
    batch, rows = next(
        (batch, rows)
        for batch in batches
        for sample in batch["samples"]
        for rows in sample.get("watched", ())
        if sample["step"] == 0 and rows["last"] == CONTEXT and rows["rows"] > 20
    )
    rows |= change
    assert world.post(batch).json()["rejected"] == 1


def test_watched_rows_are_an_engines_and_heads_are_not(world: World, plan: Plan) -> None:
    view = world.deploy(plan, ["e-0", "e-1"], refine=False)
    batch, _ = Device(plan, recovers=Recovers(plan, 1.0)).batches(view, LONG)
    round_of = world.batch(plan, view, "e-0", [0])
    round_of["samples"][0]["watched"] = batch["samples"][0]["watched"]
    assert "not in rounds" in fields(world.post(round_of))["samples"]
    batch["samples"][0]["heads"] = [{"head": 0, "rows": 1, "tiles": 1, "recovery": 0.5}]
    assert "not of an engine's steps" in fields(world.post(batch))["samples"]


def test_a_profile_without_curves_promises_nothing(world: World) -> None:
    plan = world.plan(device_type="cpu", method=..., placement={"slots": 3, "divisible": True})
    for rank in range(2):
        world.register(f"e-{rank}", ["cpu"])
    view = world.deploy(plan, ["e-0", "e-1"])
    half = lambda phase, layer, rows: np.full(len(rows.rows), 0.5)  # noqa: E731, ARG005
    serve(world, Device(plan, recovers=half), view, LONG)
    drift = world.view()["recovery_drift"]
    assert drift["reason"] == "profile 'small' (budgets) promises no recovery"
