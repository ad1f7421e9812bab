"""Whether HPLB is worth it: the answer follows from one plan for the traffic, and says no, too."""

from dataclasses import replace

import numpy as np
import pytest

from profiles.catalogue import catalogue_rates
from profiles.traffic import StepClass, Traffic
from solver.planning.planner import make_plan, rates_of
from solver.report.engine_plans import DENSE, Setting
from solver.report.stock_base import StockBase
from solver.report.traffic_steps import Steps, counted, learnt
from solver.report.verdict import verdict
from solver.report.worth import LITTLE, WorthError, worth
from solver.request import PlanRequest
from tests.solver.budgets.builders import calibrated
from tests.solver.profiles import stated_budgets

UNEVEN = np.array([[131072, 131072, *[1024] * 6], [1024] * 8], dtype=float)
DIVIDES_BY_NONE = np.array([[131072, 4096, *[1024] * 7]] * 2, dtype=float)
"""9 query heads."""


def setting(tokens=UNEVEN, mlp_size: int | None = 512, kv_heads: int = 4, **fields) -> Setting:
    profile = stated_budgets(tokens, kv_heads, mlp_size=mlp_size)
    return Setting(profile, 2, "h200", **{"budget": {}, "plan_s": 1.0, **fields})


def prompts(*lengths: int) -> list[Steps]:
    return counted(Traffic(np.array(lengths), None), 16)


def made(of: Setting, contexts: list[int], budget: dict, slots: int | None, gpus: int = 2):
    request = PlanRequest.checked(
        profile=of.profile,
        gpus=gpus,
        workloads=[{"context_tokens": context} for context in contexts],
        deployment="tensor_parallel",
        budget=budget,
        placement={} if slots is None else {"divisible": True, "slots": slots},
    )
    return make_plan(request, rates_of(request))


def test_long_uneven_prompts_gain_by_budgets_and_by_placement() -> None:
    found = worth(setting(), prompts(131072, 131072))
    (row,) = found.rows
    assert found.answer == "yes"
    assert row.of.requests == row.of.times == 2
    assert found.base == StockBase(2, 1)
    stages = row.stages
    assert stages.stock_s == pytest.approx(stages.padded_s)  # heads that divide need no padding
    assert stages.padded_s > stages.sparse_s > stages.slotted_s
    assert stages.dense_placed_s <= stages.stock_s * (1 + 1e-3)
    assert found.total.gain == pytest.approx(stages.gain)
    assert found.total.stock_s == pytest.approx(2 * stages.stock_s)
    assert 0 < found.total.attention_share < 1
    assert found.break_even_tokens is not None
    assert found.break_even_tokens == found.tried_to_tokens < 131072
    assert not found.dense
    assert found.loss is None
    assert any("not known" in said for said in verdict(found))


def test_its_seconds_are_those_of_the_plans() -> None:
    of = setting(slots=2)
    (row,) = worth(of, prompts(65536)).rows
    sparse = made(of, [65536], {}, 2).whole_step
    dense = made(of, [65536], {"policy": "dense"}, 2).whole_step
    assert row.stages.padded_s == pytest.approx(dense.contiguous_step_s)
    assert row.stages.attention_share == pytest.approx(dense.attention_share)
    assert row.stages.sparse_s == pytest.approx(sparse.contiguous_step_s)
    assert row.stages.slotted_s == pytest.approx(sparse.step_s, rel=0.01)


def test_one_plan_serves_all_lengths_with_one_number_of_slots_and_one_budget_vector() -> None:
    profile = calibrated()
    shape = profile.architecture.model_copy(update={"mlp_size": 64})
    of = Setting(profile.model_copy(update={"architecture": shape}), 2, "h200", {"loss": 0.05})
    alone, both = worth(of, prompts(4096)), worth(of, prompts(4096, 32768))
    short, longest = both.rows
    assert longest.loss is not None
    assert short.loss is not None
    assert 0 < alone.rows[0].loss <= 0.05
    assert 0 < longest.loss <= 0.05
    assert short.loss < longest.loss
    assert both.loss == longest.loss
    # A list made for long prompts leaves less out of short ones, and gains less there.
    assert short.stages.by_budgets < alone.rows[0].stages.by_budgets
    told = both.to_json()
    assert "slots" not in told["rows"][0]
    assert told["slots"] >= told["least_slots"] == 4


def test_heads_that_do_not_divide_are_held_against_engines_side_by_side() -> None:
    of = setting(DIVIDES_BY_NONE, kv_heads=3)
    found = worth(of, prompts(65536))
    assert found.base == StockBase(1, 2)
    assert found.to_json()["base"] == {"ranks": 1, "replicas": 2}
    alone = made(of, [65536], {"policy": "dense"}, None, gpus=1).whole_step
    (row,) = found.rows
    assert row.stages.stock_s == pytest.approx(alone.contiguous_step_s / 2)
    # Two slots for the three groups' heads: a quarter of what is projected is padding.
    assert row.stages.by_padding < 0
    said = verdict(found)
    assert "2 stock engines of 1 rank side by side" in said[0]
    assert said[1].startswith("stock engines refuse 2 ranks, by which 9 query and 3 KV heads")
    assert "loses" in said[1]


def test_dense_heads_lose_to_engines_side_by_side() -> None:
    found = worth(setting(DIVIDES_BY_NONE, kv_heads=3, budget=DENSE), prompts(4096))
    assert found.dense
    assert found.loss == 0
    assert found.answer == "no"
    assert found.total.gain < 0
    assert found.total.by_budgets == 0
    said = verdict(found)
    assert said[0].startswith("no: ")
    assert "less of this traffic" in said[0]
    assert any("every head is dense" in sentence for sentence in said)


def test_slots_beyond_the_least_are_told_apart() -> None:
    found = worth(setting(slots=3), prompts(131072))
    assert (found.slots, found.least_slots) == (3, 2)
    assert found.kv_share == pytest.approx(2 / 3)
    stages = found.total
    assert stages.placed_s != stages.slotted_s
    least = worth(setting(slots=2), prompts(131072))
    assert least.kv_share == 1
    assert least.total.by_slots == 0
    assert least.total.slotted_s == pytest.approx(stages.placed_s, rel=0.01)


def test_short_prompts_of_a_wide_model_are_told_no() -> None:
    found = worth(setting(np.full((2, 8), 2.0**20), mlp_size=65536), prompts(64, 100))
    assert found.answer == "no"
    assert found.total.gain < LITTLE
    assert found.break_even_tokens is None
    said = verdict(found)
    assert said[0].startswith("no: ")
    assert f"up to {found.tried_to_tokens:,} tokens" in said[1]
    assert "every head is dense" in said[2]


def test_seconds_of_a_data_sheet_are_said_with_the_answer() -> None:
    found = worth(replace(setting(), device_type="cpu"), prompts(4096))
    assert found.unmeasured == ["prefill"]
    assert "by the data sheet of cpu, unmeasured: " in verdict(found)[0]


def test_a_decode_runs_as_often_as_its_batch_makes_tokens() -> None:
    steps = counted(Traffic(np.array([4096, 4096]), np.array([100, 300])), 4)
    # Behind the prompt, half of what is made.
    assert steps == [Steps("prefill", 4096, 1, 2, 2), Steps("decode", 4196, 4, 400 / 4, 2)]
    found = worth(setting(), steps)
    prefill, decode = found.rows
    total_s = 2 * prefill.stages.stock_s + 100 * decode.stages.stock_s
    assert found.total.stock_s == pytest.approx(total_s)


def test_a_learnt_traffic_is_weighed_by_how_often_its_steps_come() -> None:
    live = made(setting(), [4096], {}, 2)
    classes = [StepClass(True, 4096, 1, 0.75), StepClass(False, 2000, 8, 0.25)]
    rates = {phase: catalogue_rates(["h200"], phase) for phase in ("prefill", "decode")}
    prefill, decode = learnt(live, classes, rates)
    assert (decode.phase, decode.context_tokens, decode.batch_size) == ("decode", 2000, 8)
    assert prefill.requests is None
    assert prefill.times * live.makespan_s == pytest.approx(0.75)
    found = worth(setting(), [prefill, decode])
    assert [row.of for row in found.rows] == [prefill, decode]


def test_a_model_whose_mlp_nobody_knows_is_refused() -> None:
    with pytest.raises(WorthError, match="mlp_size"):
        worth(setting(mlp_size=None), prompts(4096))
