"""benchmarks/replan: what a move gained and cost, from rounds by the clock."""

import pytest

from benchmarks.replan import AFTER, BEFORE, MOVING, net
from benchmarks.serving import Round


def rounds(*walls: float) -> list[Round]:
    return [Round([], wall, {}) for wall in walls]


def test_a_move_is_paid_by_the_rounds_after_it() -> None:
    found = {BEFORE: rounds(30.0, 34.0), MOVING: rounds(33.0, 35.0), AFTER: rounds(28.0, 28.0)}
    told = net(found, 1120)
    assert (told["gain_s"], told["cost_s"], told["paid_rounds"]) == (4.0, 12.0, 3.0)
    assert told["before_tokens_per_s"] == 35.0
    assert told["after_tokens_per_s"] == 40.0
    assert told["net_tokens_per_s"] == pytest.approx(4 * 1120 / 124)


def test_a_plan_that_is_no_faster_never_pays_for_its_move() -> None:
    found = {BEFORE: rounds(30.0), MOVING: rounds(33.0), AFTER: rounds(30.0)}
    assert net(found, 100)["paid_rounds"] is None
