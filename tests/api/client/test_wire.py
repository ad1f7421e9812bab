"""The client and the service speak the same language, whatever proxies the environment names."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.client.bodies import (
    Active,
    DeploymentRequest,
    Incumbent,
    LeaseRenewal,
    MeasurementBatch,
    NodeRegistration,
    SolveAccepted,
    SolveCut,
    SolveStatus,
)
from api.client.planner_client import AsyncPlannerClient, PlannerClient
from api.client.planner_errors import (
    NodeUnknownError,
    NotFoundError,
    PlannerAwayError,
    RefusedError,
    SupersededError,
)
from profiles.catalogue import catalogue_profile
from solver.plans import Plan
from solver.request import PlanRequest
from tests.api.slow_solver import SlowSolver
from tests.api.world import World, fields, plan_body

NOBODY = "http://127.0.0.1:9"
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@pytest.fixture
def planner(live: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> PlannerClient:
    """A client of a service on this machine, where every proxy leads nowhere."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for name in PROXIES:
        monkeypatch.setenv(name, NOBODY)
        monkeypatch.setenv(name.upper(), NOBODY)
    return PlannerClient(str(live.base_url))


def _node(name: str = "a") -> NodeRegistration:
    return NodeRegistration(
        node_id=name, boot_id="boot", devices=["h200", "h200"], backend="none", versions={}
    )


def test_a_plan_goes_live_is_measured_and_seen(planner: PlannerClient, live_world: World) -> None:
    assert planner.ready().status == "ok"
    request = PlanRequest.model_validate(plan_body())
    plan = planner.plan(request)
    assert planner.plan(request) == plan == live_world.plan()
    rates = {(each.device, each.phase): each.version for each in planner.cost_models()}
    assert plan.cost_model == {"h200": rates["h200", plan.workload.phase]}
    assert planner.register(_node()).lease_s == 10
    assert planner.assignment("a", None, 0) is None
    wanted = DeploymentRequest(plan_id=plan.id, nodes=["a"], rounds=2, every_s=2.5, refine=False)
    view = planner.put_deployment("d", wanted)
    assert (view.generation, view.measured, view.every_s) == (1, None, 2.5)

    found = planner.assignment("a", None, 20)
    assert found is not None
    assert (found.plan, found.devices, found.every_s) == (plan, [0, 1], 2.5)
    assert planner.assignment("a", found.active, 0) is None
    planner.renew("a", LeaseRenewal(boot_id="boot", active=found.active, error="warm"))
    (node,) = planner.nodes()
    assert (node.live, node.active, node.error) == (True, found.active, "warm")

    batch = MeasurementBatch.model_validate(live_world.batch(plan, live_world.view(), "a", [0, 1]))
    assert batch.key == found.key
    assert planner.post_measurements(batch).accepted == len(batch.samples)
    assert planner.post_measurements(batch).duplicate
    seen = planner.deployment("d")
    assert seen.measured is not None
    assert seen.measured.rounds == 1
    assert planner.deployment("d", 1) == seen.model_copy(update={"recovery_drift": None})


def test_a_solve_is_started_followed_and_cut_short(
    planner: PlannerClient, slow: SlowSolver
) -> None:
    started = planner.start(PlanRequest.model_validate(plan_body()))
    assert isinstance(started, SolveAccepted)
    slow.wait_for_start()
    under_way = planner.find_plan(started.id)
    assert isinstance(under_way, SolveStatus)
    assert under_way.status == "solving"
    slow.tell(3.0, 1.0)
    events = planner.follow(started.id)
    first = next(events)
    assert isinstance(first, Incumbent)
    assert first.makespan_s == 3.0
    plan = planner.cancel(started.id)
    while not isinstance(plan, Plan):
        plan = planner.find_plan(started.id)
    (end,) = events
    assert end == SolveCut(
        plan_id=plan.id,
        status=plan.status,
        makespan_s=plan.makespan_s,
        lower_bound_s=plan.lower_bound_s,
        gap=plan.gap,
    )
    assert planner.find_plan(plan.id) == plan


def test_a_solve_is_followed_to_its_plan(planner: PlannerClient, live_world: World) -> None:
    told: list[Incumbent] = []
    request = PlanRequest.model_validate(plan_body(method="auto", gpus=3))
    plan = planner.solve(request, told.append)
    assert plan.makespan_s == pytest.approx(told[-1].makespan_s, rel=0.05)
    assert planner.solve(request) == plan == live_world.plan(method="auto", gpus=3)
    assert [each.id for each in planner.plans(limit=1).plans] == [plan.id]


def test_what_is_stored_comes_back(planner: PlannerClient) -> None:
    mine = catalogue_profile("llama-3.1-8b-synthetic").model_copy(update={"name": "mine"})
    assert planner.put_profile(mine).digest == mine.digest
    assert planner.profile("mine") == mine
    assert "mine" in {each.name for each in planner.profiles()}
    assert planner.deployments() == []
    assert planner.version().api == ["/v1"]


def test_the_awaited_client_does_the_same(live: httpx.Client) -> None:
    async def all_of_it() -> None:
        async with AsyncPlannerClient(str(live.base_url)) as planner:
            told: list[Incumbent] = []
            request = PlanRequest.model_validate(plan_body(method="auto"))
            made, *nodes = await asyncio.gather(
                planner.solve(request, told.append), planner.nodes(), planner.nodes()
            )
            assert told
            assert nodes == [[], []]
            assert await planner.plan(request) == made
            with pytest.raises(NotFoundError, match="GET /deployments/d: 404 no deployment 'd'"):
                await planner.deployment("d")

    asyncio.run(all_of_it())


def test_what_the_service_refuses_says_why(planner: PlannerClient, live_world: World) -> None:
    with pytest.raises(RefusedError, match=r"POST /plan: 422 .*unknown profile 'nobody'"):
        planner.plan(PlanRequest.model_validate(plan_body(profile="nobody")))
    with pytest.raises(RefusedError, match="GET /deployments/d: 404"):
        planner.deployment("d")
    with pytest.raises(NodeUnknownError):
        planner.renew("a", LeaseRenewal(boot_id="boot"))
    with pytest.raises(NodeUnknownError):
        planner.assignment("a", Active(deployment="d", generation=1), 0)
    plan = live_world.plan()
    planner.register(_node())
    live_world.deploy(plan, ["a"])
    late = live_world.batch(plan, {**live_world.view(), "generation": 0}, "a", [0])
    with pytest.raises(SupersededError, match="generation 0"):
        planner.post_measurements(MeasurementBatch.model_validate(late))


def test_a_plan_is_waited_for_as_long_as_asked(
    planner: PlannerClient, slow: SlowSolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.client.conversation.TIMEOUT_S", 0.2)
    with pytest.raises(PlannerAwayError) as caught:
        planner.plan(PlanRequest.model_validate(plan_body()), wait_s=0.1)
    assert not caught.value.answered
    assert len(slow.calls) == 1, "asked once"
    assert slow.calls[0]["cancel"].wait(20)


@pytest.mark.usefixtures("planner")  # its proxies
def test_a_planner_elsewhere_is_asked_through_the_proxy() -> None:
    with pytest.raises(PlannerAwayError, match="refused"):
        PlannerClient("http://planner.invalid:8000").ready()


def test_the_documents_example_runs(planner: PlannerClient) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "http.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    said: dict[str, Any] = {}
    exec(example.replace("http://127.0.0.1:8000", planner.url), said)
    assert said["plan"].profile.name == "llama-3.1-8b-synthetic"
    assert len(said["plan"].devices) == 8


def test_what_the_client_exports() -> None:
    import api.client

    assert set(api.client.__all__) == {
        "AsyncPlannerClient",
        "BadRequestError",
        "ConflictError",
        "DeploymentRequest",
        "Incumbent",
        "KeyRefusedError",
        "NotFoundError",
        "PlannerAwayError",
        "PlannerClient",
        "PlannerError",
        "RefusedError",
    }


@pytest.mark.parametrize("left_out", ["batch_id", "timing"])
def test_a_batch_says_which_it_is_and_how_it_was_timed(world: World, left_out: str) -> None:
    plan = world.plan()
    world.register("a", 2)
    batch = world.batch(plan, world.deploy(plan, ["a"]), "a", [0, 1])
    del batch[left_out]
    assert left_out in fields(world.post(batch))
