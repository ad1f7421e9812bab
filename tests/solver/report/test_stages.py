"""Stages' gains multiply to the whole one, of a step and of a traffic."""

import pytest

from solver.report.stages import Stages

ONE = Stages(10, 4, 12, 11, 8, 7, 6)
OTHER = Stages(1, 0.1, 1, 1, 2, 2, 2)


def test_gains_multiply_to_the_whole() -> None:
    total = Stages.total([(2, ONE), (3, OTHER)])
    assert total.stock_s == 23
    assert total.slotted_s == 18
    assert total.attention_share == pytest.approx(8.3 / 23)
    for stages in (ONE, OTHER, total):
        gains = (stages.by_padding, stages.by_budgets, stages.by_placement, stages.by_slots)
        product = 1.0
        for gain in gains:
            product *= 1 + gain
        assert product == pytest.approx(1 + stages.gain)
    assert ONE.by_padding == pytest.approx(-1 / 6)
    assert ONE.without_budgets == pytest.approx(-1 / 11)
    assert ONE.to_json()["gain_of_padding"] == ONE.by_padding
