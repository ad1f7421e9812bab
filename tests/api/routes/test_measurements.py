"""`/measurements`: counted once, believed if possible, and only for the live generation."""

import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from api.client.bodies import COLUMNS, MEASUREMENTS_HEADER, MeasurementBatch
from api.store import retention, sample_store
from api.store.retention import RetentionPolicy
from api.store.tables import StoredBatch, StoredRecovery, StoredRound
from profiles.cost.work import FEATURES, budget_pieces
from profiles.sizes import causal_pieces
from solver.plans import Plan
from tests.api.world import Json, World, fields


@pytest.fixture
def live(world: World) -> tuple[Plan, Json]:
    """A plan on nodes a (device 0) and b (device 1), left alone by the refine loop."""
    plan = world.plan()
    world.register("a")
    world.register("b")
    return plan, world.deploy(plan, ["a", "b"], refine=False)


def _stored(world: World) -> tuple[int, int]:
    with world.service.database.read() as session:
        rounds = session.query(StoredRound).all()
        return session.query(StoredBatch).count(), sum(row.samples for row in rounds)


def test_medians_over_complete_rounds(world: World, live: tuple[Plan, Json]) -> None:
    plan, view = live
    for slow in (2.0, 9.0, 4.0):
        assert world.view()["measured"] is None or slow != 2.0
        for node, device in (("a", 0), ("b", 1)):
            batch = world.batch(plan, view, node, [device], slow)
            receipt = world.post(batch).json()
            assert receipt == {
                "batch_id": batch["batch_id"],
                "duplicate": False,
                "accepted": 3,
                "rejected": 0,
            }
    measured = world.view()["measured"]
    expected = np.array([[4.0 * s for s in layer.loads_s] for layer in plan.layers])
    assert measured["rounds"] == 3
    assert measured["timing"] == "alone"
    np.testing.assert_allclose(measured["device_loads_s"], expected)
    assert measured["makespan_s"] == pytest.approx(4 * plan.makespan_s)
    assert measured["bubble_ratio"] == pytest.approx(plan.bubble_ratio)
    assert world.view()["drift"] == pytest.approx(4)
    assert world.view()["prediction_error"] == pytest.approx(0.75)


def test_nothing_is_shown_before_every_node_has_reported(
    world: World, live: tuple[Plan, Json]
) -> None:
    plan, view = live
    world.post(world.batch(plan, view, "a", [0]))
    world.post(world.batch(plan, view, "a", [0]))
    assert world.view()["measured"] is None
    world.post(world.batch(plan, view, "b", [1]))
    assert world.view()["measured"]["rounds"] == 1


def test_timings_are_not_mixed(world: World, live: tuple[Plan, Json]) -> None:
    plan, view = live
    for timing, slow in (("alone", 2.0), ("concurrent", 8.0)):
        for node, device in (("a", 0), ("b", 1)):
            batch = {**world.batch(plan, view, node, [device], slow), "timing": timing}
            assert world.post(batch).status_code == 200
    measured = world.view()["measured"]
    assert (measured["timing"], measured["rounds"]) == ("concurrent", 1)
    assert measured["makespan_s"] == pytest.approx(8 * plan.makespan_s)


def test_a_batch_counts_once_however_often_it_comes(world: World, live: tuple[Plan, Json]) -> None:
    plan, view = live
    batch = world.batch(plan, view, "a", [0])
    assert world.post(batch).json()["duplicate"] is False
    after = _stored(world)
    again = world.post({**batch, "samples": batch["samples"][:1]}).json()
    assert again == {
        "batch_id": batch["batch_id"],
        "duplicate": True,
        "accepted": 3,
        "rejected": 0,
    }
    assert _stored(world) == after == (1, 3)


def test_a_batch_posted_by_many_at_once_counts_once(world: World, live: tuple[Plan, Json]) -> None:
    plan, view = live
    batch = world.batch(plan, view, "a", [0])
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: world.post(batch), range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["duplicate"] for answer in answers) == [False] + [True] * 15
    assert _stored(world) == (1, 3)


def test_a_superseded_generation_changes_nothing_but_its_duplicates_are_known(
    world: World, live: tuple[Plan, Json]
) -> None:
    plan, view = live
    known = world.batch(plan, view, "a", [0])
    world.post(known)
    late = world.batch(plan, view, "a", [0])
    world.deploy(plan, ["a", "b"], refine=False, rounds=9)
    before = _stored(world)
    fields(world.post(late), 409)
    assert _stored(world) == before
    assert world.post(known).json()["duplicate"] is True
    # Refused is not seen: the same id counts when it comes for what is live.
    assert world.post({**late, "generation": 2}).json()["duplicate"] is False


def test_a_node_taken_by_another_deployment_is_superseded(
    world: World, live: tuple[Plan, Json]
) -> None:
    plan, view = live
    batch = world.batch(plan, view, "a", [0])
    world.deploy(world.plan(gpus=1), ["a"], "other")
    fields(world.post(batch), 409)


def test_what_no_chip_can_do_is_rejected(world: World, live: tuple[Plan, Json]) -> None:
    plan, view = live
    batch = world.batch(plan, view, "a", [0])
    batch["samples"][0]["seconds"] = 1e-9
    batch["samples"][1]["work"] = {}
    receipt = world.post(batch).json()
    assert (receipt["accepted"], receipt["rejected"]) == (1, 2)
    assert _stored(world) == (1, 1)


def _changed(batch: Json, path: str, value: Any) -> Json:
    place: Any = batch
    *front, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in front:
        place = place[key]
    place[last] = value
    return batch


@pytest.mark.parametrize(
    ("path", "value", "status", "field"),
    [
        ("plan_id", "0" * 64, 404, None),
        ("deployment", "nobody", 404, None),
        ("generation", 2, 409, None),
        ("generation", 0, 409, None),
        ("node_id", "nobody", 409, None),
        ("generation", -1, 422, "generation"),
        ("batch_id", "", 422, "batch_id"),
        ("timing", "later", 422, "timing"),
        ("samples", [], 422, "samples"),
        ("samples.0.device", 1, 422, "samples.0.device"),
        ("samples.0.device", 7, 422, "samples.0.device"),
        ("samples.0.layer", 3, 422, "samples.0.layer"),
        ("samples.0.layer", 1, 422, "samples"),
        ("samples.0.seconds", 0, 422, "samples.0.seconds"),
        ("samples.0.seconds", -1, 422, "samples.0.seconds"),
        ("samples.0.seconds", "soon", 422, "samples.0.seconds"),
        ("samples.0.seconds", 1e300, 422, "samples.0.seconds"),
        ("samples.0.work", {"thoughts": 1}, 422, "samples.0.work"),
        ("samples.0.work", {"launches": -1}, 422, "samples.0.work.launches"),
        ("samples.0.colour", "red", 422, "samples.0.colour"),
        ("mood", "good", 422, "mood"),
    ],
)
def test_a_bad_batch_is_refused_whole(
    world: World, live: tuple[Plan, Json], path: str, value: Any, status: int, field: str | None
) -> None:
    plan, view = live
    found = fields(world.post(_changed(world.batch(plan, view, "a", [0]), path, value)), status)
    assert field is None or field in found
    assert _stored(world) == (0, 0)


def test_a_plan_that_is_not_live_is_refused(world: World, live: tuple[Plan, Json]) -> None:
    plan, view = live
    other = world.plan(method="snake")
    batch = world.batch(plan, view, "a", [0])
    assert "plan_id" in fields(world.post({**batch, "plan_id": other.id}))


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "1e999"])
def test_figures_that_are_no_numbers_are_refused(
    world: World, live: tuple[Plan, Json], literal: str
) -> None:
    plan, view = live
    batch = world.batch(plan, view, "a", [0])
    batch["samples"][0]["seconds"] = "HERE"
    body = json.dumps(batch).replace('"HERE"', literal)
    answer = world.client.post(
        "/measurements", content=body, headers={"content-type": "application/json"}
    )
    assert "samples.0.seconds" in fields(answer)


@pytest.mark.parametrize("factor", [1e6, 3.0, 0.3, 0.0])
def test_counts_that_are_not_the_plans_are_rejected_and_teach_nothing(
    world: World, factor: float
) -> None:
    plan = world.plan()
    world.register("a", 2)
    view = world.deploy(plan, ["a"], refine=False)
    batch = world.batch(plan, view, "a", [0, 1])
    for sample in batch["samples"]:
        sample["work"]["link_bytes"] *= factor
    answer = world.post(batch).json()
    assert (answer["accepted"], answer["rejected"]) == (0, len(batch["samples"]))
    world.settle()
    again = world.plan(fresh=True)
    assert again.cost_model == plan.cost_model


def test_rounds_that_go_on_do_not_fill_the_database(
    world: World, live: tuple[Plan, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_store, "NEWEST_ROUNDS", 2)
    plan, view = live
    for slow in (2.0, 3.0, 4.0, 5.0):
        for index, node in enumerate("ab"):
            batch = world.batch(plan, view, node, [index], slow)
            assert world.post(batch).json()["accepted"] == len(view["layers"])
    assert world.view()["measured"]["rounds"] == 2
    shown = world.view()
    deleted = retention.prune(world.service.database, RetentionPolicy(), world.clock())
    assert deleted == {"rounds": 2 * 2}
    assert _stored(world) == (2 * 4, 2 * 2 * len(view["layers"]))
    assert world.view() == shown
    again = world.post(batch).json()  # the batch itself is remembered
    assert again["duplicate"]


def test_samples_counted_in_features_that_are_no_more_keep_their_seconds_alone(
    world: World, live: tuple[Plan, Json]
) -> None:
    plan, view = live
    assert world.post(world.batch(plan, view, "a", [0])).json()["accepted"] == 3
    measured = world.view()["measured"]
    with world.service.database.write() as session:
        older = session.query(StoredRound).one()
        assert older.features == list(FEATURES)
        older.features, older.work = [], zlib.compress(b"")
    assert world.view()["measured"] == measured
    assert world.post(world.batch(plan, view, "a", [0])).json()["accepted"] == 3
    with world.service.database.read() as session:
        found = sample_store.newest(session, "h200", "prefill", 10)
    assert len(found) == 3


def test_work_in_features_that_are_no_more_is_refused_by_name(
    world: World, live: tuple[Plan, Json]
) -> None:
    batch = world.batch(*live, "a", [0])
    batch["samples"][0]["work"]["tile_flops"] = 1.0
    refused = world.post(batch)
    assert refused.status_code == 422
    assert "unknown feature 'tile_flops'; known are launches" in refused.text


def _in_columns(batch: Json) -> Json:
    body: Json = MeasurementBatch.model_validate(batch).in_columns().model_dump(mode="json")
    return body


def test_columns_say_what_samples_say_in_fewer_bytes(world: World, live: tuple[Plan, Json]) -> None:
    plan, view = live
    batches = [world.batch(plan, view, node, [index]) for index, node in enumerate("ab")]
    for batch in batches:
        assert world.post({**batch, "batch_id": f"{batch['batch_id']}-s"}).status_code == 200
        assert world.post(_in_columns(batch)).json()["accepted"] == 3
        assert len(json.dumps(_in_columns(batch))) < 0.7 * len(json.dumps(batch))
        again = world.post(batch)
        assert again.json()["duplicate"] is True
        assert again.headers[MEASUREMENTS_HEADER] == COLUMNS
    with world.service.database.read() as session:
        known = sample_store.newest(session, "h200", "prefill", 100)
        rows = session.query(StoredRound).order_by(StoredRound.id).all()
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        for column in ("layers", "devices", "seconds", "features", "work", "samples"):
            assert getattr(first, column) == getattr(second, column)
    assert len(known) == 12


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("columns", None, "samples"),
        ("samples", [], "samples"),
        ("columns.layer", [], "columns.layer"),
        ("columns.layer.0", 3, "columns.layer.0"),
        ("columns.layer.0", 1, "columns"),
        ("columns.device.1", 1, "columns.device.1"),
        ("columns.device", [0], "columns.device"),
        ("columns.seconds", [1.0], "columns.seconds"),
        ("columns.seconds.2", -1, "columns.seconds.2"),
        ("columns.work.launches", [1.0], "columns.work.launches"),
        ("columns.work.thoughts", [1.0, 1.0, 1.0], "columns.work"),
        ("columns.colour", ["red"] * 3, "columns.colour"),
        (
            "columns.heads",
            {"sample": [3], "head": [0], "rows": [1], "tiles": [1], "recovery": [1.0]},
            "columns.heads.sample",
        ),
        (
            "columns.heads",
            {"sample": [0], "head": [99], "rows": [1], "tiles": [1], "recovery": [1.0]},
            "columns.heads.head.0",
        ),
    ],
)
def test_bad_columns_are_refused_whole(
    world: World, live: tuple[Plan, Json], path: str, value: Any, field: str
) -> None:
    plan, view = live
    body = _changed(_in_columns(world.batch(plan, view, "a", [0])), path, value)
    found = fields(world.post(body))
    assert field in found, found
    assert _stored(world) == (0, 0)


def test_heads_travel_in_columns_too(world: World, live: tuple[Plan, Json]) -> None:
    plan, view = live
    batch = world.batch(plan, view, "a", [0])
    reported = []
    for sample in batch["samples"][:2]:
        entries = plan.layers[sample["layer"]].heads
        head = next(h for h, parts in enumerate(entries) if parts[0].device == 0)
        step, budget = plan.workload.workload, plan.budgets[sample["layer"]][head]
        pieces = int(budget_pieces(np.array(budget), step))
        tiles = int(causal_pieces(pieces, step.context_blocks, step.block_pieces))
        sample["heads"] = [{"head": head, "rows": 64, "tiles": tiles, "recovery": 0.5}]
        reported.append([sample["layer"], head, 64, tiles, 0.5])
    assert world.post(_in_columns(batch)).json()["accepted"] == 3
    with world.service.database.read() as session:
        (stored,) = session.query(StoredRecovery).all()
    assert stored.figures == reported
