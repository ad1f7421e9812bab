"""The engine is held up while all ranks change, and goes on only where all are alike."""

import asyncio
import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from executor.engines.vllm import moving
from executor.engines.vllm.moving import Mover

PLANNER = {"hplb_planner": "http://planner", "hplb_node": "n"}


class Engine:
    """A front end's client of ranks that answer what is said here; what it was asked, in order."""

    def __init__(self, **answers: list[Any]) -> None:
        parallel = SimpleNamespace(_api_process_rank=0, data_parallel_size=1)
        self.vllm_config = SimpleNamespace(additional_config=PLANNER, parallel_config=parallel)
        self.answers = {"offer": [None, None], **answers}
        self.asked: list[str] = []
        self.paused = self.errored = False
        self.pause_fault: Exception | None = None

    async def collective_rpc(self, method: str, args: tuple[Any, ...]) -> list[Any]:
        name = method.removeprefix("hplb_")
        self.asked.append(name if not args else f"{name} {args[0]}")
        if name == "offer" and self.asked.count("offer") > 1:
            # Looked at twice: the test is over.
            self.errored = True
            return [None, None]
        return self.answers.get(name, [None, None])

    async def is_paused(self) -> bool:
        return self.paused

    async def pause_generation(self, mode: str, clear_cache: bool) -> None:
        assert (mode, clear_cache) == ("keep", True)
        self.asked.append("pause")
        if self.pause_fault is not None:
            raise self.pause_fault

    async def resume_generation(self) -> None:
        self.asked.append("resume")


@pytest.fixture(autouse=True)
def killed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The signals that were sent."""
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(moving, "LOOK_S", 0.0)
    monkeypatch.setattr(moving.os, "kill", lambda *given: found.append(given))
    return found


def watched(engine: Engine) -> list[str]:
    """What the engine was asked, once what is offered has been looked at."""

    async def run() -> None:
        mover = Mover()
        await mover.init_state(engine, None, None)
        await mover._task

    asyncio.run(run())
    assert (engine.asked[0], engine.asked[-1]) == ("offer", "offer")
    return engine.asked[1:-1]


def test_nothing_is_held_up_until_all_ranks_say_the_same() -> None:
    assert watched(Engine()) == []
    assert watched(Engine(offer=[("a", False), None])) == []
    assert watched(Engine(offer=[("a", False), ("b", False)])) == []


def test_budgets_alone_are_begun_with_in_emptied_caches() -> None:
    asked = watched(Engine(offer=[("a", False), ("a", False)]))
    assert asked == ["pause", "begin a", "resume"]


def test_other_weights_are_loaded_before() -> None:
    asked = watched(Engine(offer=[("a", True), ("a", True)]))
    assert asked == ["pause", "load", "begin a", "resume"]


def test_where_one_rank_cannot_load_them_all_go_on_with_what_they_had() -> None:
    asked = watched(Engine(offer=[("a", True), ("a", True)], load=[None, "no memory"]))
    assert asked == ["pause", "load", "load_back", "refuse a", "resume"]


@pytest.mark.parametrize(
    "answers",
    [
        {"load": [None, "no memory"], "load_back": ["gone", None]},
        {"begin": [None, "not ready"]},
    ],
)
def test_ranks_that_are_left_unlike_answer_nothing(
    answers: dict[str, list[Any]], killed: list[tuple[int, int]]
) -> None:
    asked = watched(Engine(offer=[("a", True), ("a", True)], **answers))
    assert "resume" not in asked
    assert killed == [(os.getpid(), signal.SIGTERM)]


def test_an_engine_that_cannot_be_held_up_goes_on(killed: list[tuple[int, int]]) -> None:
    engine = Engine(offer=[("a", False), ("a", False)])
    engine.pause_fault = RuntimeError("a connector keeps its cache")
    assert watched(engine) == ["pause", "resume", "refuse a"]
    assert not killed


def test_an_engine_that_somebody_else_holds_is_left_alone() -> None:
    engine = Engine(offer=[("a", False), ("a", False)])
    engine.paused = True
    assert watched(engine) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"additional_config": {}},
        {"parallel_config": SimpleNamespace(_api_process_rank=1, data_parallel_size=1)},
        {"parallel_config": SimpleNamespace(_api_process_rank=0, data_parallel_size=2)},
    ],
)
def test_where_nobody_wants_another_plan_or_another_front_end_asks(changes: dict[str, Any]) -> None:
    engine, mover = Engine(), Mover()
    vars(engine.vllm_config).update(changes)
    asyncio.run(mover.init_state(engine, None, None))
    assert not hasattr(mover, "_task")
