"""Requests that refer to several things: workloads with their profiles, plans, memory."""

from pathlib import Path
from typing import Any

import pytest

from api.solves.resolve import resolve
from api.store import plan_store
from profiles.model import ModelProfile
from solver.plans import Plan
from solver.request import PlanRequest
from solver.verifier import verify
from tests.api.slow_solver import SlowSolver
from tests.api.world import CONTEXT, Json, World, fields, plan_body, profile


def _other(name: str = "other", **shape: Any) -> Json:
    """Other budgets for the same architecture."""
    made = profile(name, **shape)
    made["heads"]["tokens"] = [row[::-1] for row in made["heads"]["tokens"]]
    return made


def _steps(*profiles: object, **more: Any) -> Json:
    steps = [{"context_tokens": CONTEXT, "profile": p, "weight": 2.0} for p in profiles]
    steps.append({"context_tokens": CONTEXT // 2, "phase": "decode", "batch_size": 4})
    return {"context_tokens": ..., "workloads": steps, "method": "auto", **more}


def _store(world: World, made: Json) -> None:
    assert world.client.put(f"/profiles/{made['name']}", json=made).status_code == 200


def _digest(made: Json) -> str:
    return ModelProfile.model_validate(made).digest


def test_every_step_is_solved_with_its_own_profile_and_its_phases_rates(
    world: World, slow: SlowSolver
) -> None:
    _store(world, _other())
    slow.finish()
    plan = world.plan(**_steps(None, "other"))
    assert verify(plan.model_dump(mode="json")).faults == []
    (call,) = slow.calls
    assert [found.name for found in call["request"].profiles] == ["small", "other", "small"]
    assert [own["h200"].phase for own in call["rates"]] == ["prefill", "prefill", "decode"]
    shown = [plan.profile.digest, *(o.profile.digest for o in plan.other_workloads)]
    assert shown == [_digest(profile()), _digest(_other()), _digest(profile())]


def test_the_first_step_may_have_a_profile_of_its_own(world: World) -> None:
    plan = world.plan(**_steps(_other()))
    assert plan.profile.name == "other"
    assert plan.other_workloads[0].profile.name == "small"


def test_equal_requests_are_those_with_equal_content(world: World, slow: SlowSolver) -> None:
    _store(world, _other())
    slow.finish(4)
    named = world.plan(**_steps("other"))
    assert world.plan(**_steps(_other())) == named
    assert len(slow.calls) == 1
    world.plan(**_steps(profile()))
    assert len(slow.calls) == 2
    _store(world, profile("other"))
    world.plan(**_steps("other"))
    assert len(slow.calls) == 3, "the name now stands for other content"


def test_planning_again_takes_the_profiles_as_they_were(world: World, slow: SlowSolver) -> None:
    _store(world, _other())
    slow.finish(2)
    plan = world.plan(**_steps("other", None), fresh=True)
    _store(world, profile("other"))
    assert world.again(plan.id) == plan
    assert len(slow.calls) == 1, "an equal request, and so the stored plan"
    with world.service.database.read() as session:
        request = plan_store.request_of(session, plan.id)
    assert request.workloads is not None
    assert isinstance(request.workloads[0].profile, ModelProfile)
    assert request.workloads[0].profile.digest == _digest(_other())
    assert request.workloads[1].profile is None


def test_a_plan_for_several_workloads_is_deployed_and_judged_by_the_one_that_runs(
    world: World,
) -> None:
    plan = world.plan(**_steps(_other()))
    world.register("a", 2)
    view = world.deploy(plan, ["a"], refine=False)
    assert world.post(world.batch(plan, view, "a", [0, 1], slow=1.0)).json()["rejected"] == 0
    view = world.view()
    assert view["measured"]["rounds"] == 1
    assert view["prediction_error"] == pytest.approx(0, abs=1e-9)
    assert view["drift"] == pytest.approx(1)
    assert "hplb_plan_bound_seconds{" not in world.client.get("/metrics").text


def test_divided_heads_are_deployed_measured_and_planned_again(world: World) -> None:
    heads = profile("uneven", heads=4)
    heads["heads"]["tokens"] = [[4096, 64, 64, 64]] * 3
    plan = world.plan(profile=heads, method="auto", placement={"divisible": True, "copies": "free"})
    assert any(len(entries) > 1 for layer in plan.layers for entries in layer.heads)
    assert verify(plan.model_dump(mode="json")).faults == []
    world.register("a", 2)
    view = world.deploy(plan, ["a"])
    for _ in range(2):
        sent = world.post(world.batch(plan, world.view(), "a", [0, 1], slow=2.0))
        assert sent.json()["rejected"] == 0
        world.settle()
    view = world.view()
    assert view["measured"]["rounds"] >= 1
    assert view["drift"] == pytest.approx(2, rel=0.2)
    assert view["decision"] is not None
    assert "failed" not in view["decision"]


def test_the_current_plan_is_named_or_comes_along(world: World, slow: SlowSolver) -> None:
    slow.finish(3)
    now = world.plan()
    world.plan(placement={"current_plan": now.id})
    assert slow.calls[1]["request"].current_plan == now
    named = PlanRequest.model_validate(plan_body(placement={"current_plan": now.id}))
    with world.service.database.read() as session:
        found = resolve(session, named)
    kept = (found.request.placement.current_plan, found.whole.placement.current_plan)
    assert kept == (now.id, now), "what is kept names it"
    inline = {**now.model_dump(mode="json"), "id": "what you like"}
    world.plan(placement={"current_plan": inline})
    assert len(slow.calls) == 2, "a plan is its content, and so the request is an equal one"
    inline["warnings"] = ["another content"]
    world.plan(placement={"current_plan": inline})
    assert len(slow.calls) == 3
    assert slow.calls[2]["request"].current_plan.id not in (now.id, "what you like")


def test_moving_from_a_plan_is_planned_again_with_it(world: World) -> None:
    now = world.plan()
    moved = world.plan(method="auto", placement={"current_plan": now.id})
    assert moved.moving is not None
    assert moved.moving.current_plan == now.id
    inline = world.plan(
        method="auto", gpus=2, placement={"current_plan": now.model_dump(mode="json")}
    )
    assert inline.id == moved.id
    assert world.again(moved.id) == moved


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"placement": {"current_plan": "f" * 64}}, "placement.current_plan", "no plan"),
        ({"placement": {"current_plan": "/etc/passwd"}}, "placement.current_plan", "no plan"),
        ({"placement": {"current_plan": {"id": "x"}}}, "placement.current_plan.status", "required"),
        (_steps("nobody"), "workloads.0.profile", "llama"),
        (_steps(None, "../../etc/passwd"), "workloads.1.profile", "unknown profile"),
        (_steps(_other(heads=4)), "workloads.0.profile", "architecture"),
        (_steps(None, device_type="tpu"), "device_type", "h200"),
        ({"workloads": [{"context_tokens": 64}]}, "context_tokens", "instead"),
        ({"context_tokens": ..., "workloads": []}, "workloads", "at least 1"),
        (_steps({"name": "x"}), "workloads.0.profile.source", "required"),
        ({"placement": {"max_copies": 2}}, "placement.max_copies", "divisible"),
    ],
)
def test_what_is_not_known_or_does_not_fit_is_named(
    world: World, changes: Json, field: str, says: str
) -> None:
    found = fields(world.client.post("/plan", json=plan_body(**changes)))
    assert says in " ".join(words for name, words in found.items() if name.startswith(field)), found


def test_memory_that_does_not_do_is_bad_input_in_bytes(world: World) -> None:
    body = plan_body(placement={"memory": {"limit_bytes": 1000}})
    answer = world.client.post("/plan", json=body)
    assert any("memory" in field for field in fields(answer))
    assert "bytes short" in answer.json()["detail"]


def test_a_profile_is_never_a_file(world: World, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    ModelProfile.model_validate(profile()).save(path)
    plan = tmp_path / "plan.json"
    plan.write_text(world.plan().model_dump_json())
    for changes in (
        {"profile": str(path)},
        _steps(str(path)),
        {"placement": {"current_plan": str(plan)}},
    ):
        assert fields(world.client.post("/plan", json=plan_body(**changes)))


def test_a_current_plan_of_another_shape_is_no_crash(world: World) -> None:
    other = world.plan(profile=profile("larger", layers=4, heads=16))
    more = world.plan(gpus=3)
    for wrong in (other, more):
        answer = world.client.post("/plan", json=plan_body(placement={"current_plan": wrong.id}))
        assert answer.status_code in (200, 422), answer.text
        if answer.status_code == 200:
            Plan.parse(answer.content, "answer")
