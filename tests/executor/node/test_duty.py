from typing import Any

import pytest

from executor.attention.step import PreparedStep, prepare
from executor.node import layers
from executor.node.bench import Bench
from executor.node.duty import Duty, unfit
from tests.executor.plans import assignment, tiny_plan, whole


def test_a_node_may_have_devices_to_spare() -> None:
    assert unfit(assignment(), ["cpu", "cpu"]) is None
    assert unfit(assignment(), ["cpu", "cpu", "h200"]) is None


@pytest.mark.parametrize("devices", [["cpu"], ["cpu", "h200"], []])
def test_devices_that_are_not_those_asked_for(devices: list[str]) -> None:
    said = unfit(assignment(), devices)
    assert said == f"it wants devices of types ['cpu', 'cpu'], this node has {devices}"


def test_decodes_are_measured_as_prompts_are() -> None:
    decode = assignment(tiny_plan(phase="decode", batch_size=4))
    assert unfit(decode, ["cpu", "cpu"]) is None
    samples = Duty(decode, Bench(["cpu"] * 2, "torch")).measure_round(lambda: False)
    assert samples is not None
    assert [(s.layer, s.device) for s in samples] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_plans_that_cannot_be_split() -> None:
    half = assignment(tiny_plan([[(0, 0.5)], [(0, 1.0)]]))
    said = unfit(half, ["cpu", "cpu"])
    assert said == "layer 0, head 0: shares add to 0.5, they must add to 1"


def test_a_round_is_every_layer_and_device_that_has_work() -> None:
    wanted = assignment(tiny_plan(whole(0, 0, 1, 1), devices=3), layers=[1, 0])
    samples = Duty(wanted, Bench(["cpu"] * 3, "torch")).measure_round(lambda: False)
    assert samples is not None
    assert [(s.layer, s.device) for s in samples] == [(1, 0), (1, 1), (0, 0), (0, 1)]


def test_a_round_ends_after_the_share_in_progress() -> None:
    asked: list[int] = []

    def dropped() -> bool:
        asked.append(1)
        return len(asked) > 1

    assert Duty(assignment(), Bench(["cpu", "cpu"], "torch")).measure_round(dropped) is None
    assert len(asked) == 2


def test_steps_are_prepared_once_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[int] = []

    def counted(*arguments: Any, **options: Any) -> PreparedStep:
        prepared.append(1)
        return prepare(*arguments, **options)

    monkeypatch.setattr(layers, "prepare", counted)
    bench = Bench(["cpu", "cpu"], "torch")
    duty = Duty(assignment(), bench)
    rounds = [duty.measure_round(lambda: False) for _ in range(3)]
    assert [len(each or []) for each in rounds] == [4, 4, 4]
    assert len(prepared) == 4
    moved = tiny_plan([[(0, 1.0)], [(1, 1.0)], [(0, 0.5), (1, 0.5)], [(1, 1.0)]])
    Duty(assignment(moved), bench).measure_round(lambda: False)
    assert len(prepared) == 8
    Duty(assignment(), bench).measure_round(lambda: False)
    assert len(prepared) == 12
