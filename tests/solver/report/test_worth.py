"""Whether HPLB is worth it: the answer follows from plans of the very steps, and says no, too."""

from dataclasses import replace

import numpy as np
import pytest

from profiles.traffic import Traffic
from solver.planning.planner import make_plan, rates_of
from solver.report.worth import LITTLE, Setting, Worth, WorthError, verdict, worth
from solver.request import PlanRequest
from tests.solver.profiles import stated_budgets

UNEVEN = np.array([[131072, 131072, *[1024] * 6], [1024] * 8], dtype=float)


def setting(tokens=UNEVEN, mlp_size: int | None = 512, **fields) -> Setting:
    profile = stated_budgets(tokens, 4, mlp_size=mlp_size)
    return Setting(profile, 2, "h200", {}, plan_s=1.0, **fields)


def traffic(prompts: list[int], outputs: list[int] | None = None) -> Traffic:
    made = None if outputs is None else np.array(outputs)
    return Traffic(np.array(prompts), made)


def ask(of: Setting, *lengths: list[int]) -> Worth:
    return worth(of, traffic(*lengths))


def test_long_uneven_prompts_gain_by_budgets_and_by_placement() -> None:
    found = ask(setting(), [131072, 131072])
    (row,) = found.rows
    assert found.answer == "yes"
    assert row.requests == row.times == 2
    step = row.step
    assert step.stock_s > step.sparse_s > step.placed_s
    assert step.placed_dense_s <= step.stock_s
    assert found.gain == pytest.approx(step.gain)
    assert found.seconds("stock_s") == pytest.approx(2 * step.stock_s)
    assert 0 < found.attention_share < 1
    assert found.break_even_tokens is not None
    assert found.break_even_tokens == found.tried_to_tokens < 131072


def test_its_seconds_are_those_of_the_plans() -> None:
    of = setting(slots=2)
    (row,) = ask(of, [65536]).rows

    def whole(budget):
        request = PlanRequest.checked(
            profile=of.profile,
            gpus=2,
            context_tokens=65536,
            deployment="tensor_parallel",
            budget=budget,
            placement={"divisible": True, "slots": 2},
        )
        return make_plan(request, rates_of(request)).whole_step

    sparse, dense = whole({}), whole({"policy": "dense"})
    assert row.step.stock_s == pytest.approx(dense.contiguous_step_s)
    assert row.step.attention_share == pytest.approx(dense.attention_share)
    assert row.step.sparse_s == pytest.approx(sparse.contiguous_step_s)
    assert row.step.placed_s == pytest.approx(sparse.step_s, rel=0.01)


def test_short_prompts_of_a_wide_model_are_told_no() -> None:
    found = ask(setting(np.full((2, 8), 2.0**20), mlp_size=65536), [64, 100])
    assert found.answer == "no"
    assert found.gain < LITTLE
    assert found.break_even_tokens is None
    said = verdict(found)
    assert said[0].startswith("no: ")
    assert f"no prompt of up to {found.tried_to_tokens:,} tokens" in said[1]
    assert "not known" in said[2]


def test_a_decode_runs_as_often_as_its_batch_makes_tokens() -> None:
    found = ask(replace(setting(), decode_batch=4), [4096, 4096], [100, 300])
    prefill, decode = found.rows
    assert (prefill.step.phase, prefill.times) == ("prefill", 2)
    assert (decode.step.phase, decode.times) == ("decode", 400 / 4)
    # Behind the prompt, half of what is made.
    assert decode.step.context_tokens == 4096 + 100
    total_s = 2 * prefill.step.stock_s + 100 * decode.step.stock_s
    assert found.seconds("stock_s") == pytest.approx(total_s)


def test_a_model_whose_mlp_nobody_knows_is_refused() -> None:
    with pytest.raises(WorthError, match="mlp_size"):
        ask(setting(mlp_size=None), [4096])
