"""benchmarks/engines: figures of a row from what its ranks measured, and the aims held to them."""

from argparse import ArgumentTypeError
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from benchmarks.engines.__main__ import lengths
from benchmarks.engines.calibration import (
    PROJECTED,
    REDUCED,
    Calibration,
    Fitted,
    fitted,
)
from benchmarks.engines.plans import BASE, DIVIDED, DIVIDED_DENSE, ROWS, Predicted, predicted
from benchmarks.engines.rank import Prefill
from benchmarks.engines.summary import aims, equal_lists, rounds, summarise
from executor.barrier import Barrier
from profiles.catalogue import catalogue_profile, catalogue_rates
from profiles.cost.rest_of_step import rest_of_step
from profiles.cost.work import INDEX
from solver.planning.planner import make_plan, plan, request_of
from solver.planning.predict import shard_work


def prefills(rank: int, layers: dict[str, list[list[float]]]) -> list[Prefill]:
    """Two rounds of a rank: `layers` [layers][ranks] by row, the second round twice as slow."""
    return [
        Prefill(row, number, [scale * each[rank] for each in seconds], scale * 10.0, nats)
        for number, scale in enumerate((1, 2))
        for row, seconds in layers.items()
        for nats in [3.0 if row == BASE else 3.25]
    ]


def found(divided: list[list[float]], predicted_s: float = 6.0) -> dict[str, dict[str, Any]]:
    """Rows at 4,096 tokens whose base is 2 + 2 and 1 + 1 seconds, and all others `divided`."""
    seconds = {row.name: divided for row in ROWS} | {BASE: [[2.0, 1.0], [2.0, 1.0]]}
    measured = rounds([prefills(rank, seconds) for rank in range(2)])
    # By the rates of its own round the second is twice as slow, and the median of both is asked.
    own = [
        Predicted(Barrier((scale * predicted_s,) * 2, scale * predicted_s), scale * 18.0)
        for scale in (2 / 3, 4 / 3)
    ]
    plans, foretold = ({row.name: each for row in ROWS} for each in (own[0], own))
    return {row["row"]: row for row in summarise(4096, ROWS, plans, foretold, measured)}


def test_a_rows_figures_are_of_the_slower_rank_layer_by_layer() -> None:
    rows = found([[1.0, 2.0], [2.0, 1.0]])
    base, divided = rows[BASE], rows[DIVIDED]
    assert base["attention_s"] == {"median": 6.0, "least": 4.0, "most": 8.0}
    assert [rank["median"] for rank in base["ranks_s"]] == [6.0, 3.0]
    assert base["bubble"]["median"] == pytest.approx(0.25)
    # Both ranks have as much to do, in different layers: each layer waits for its slower one.
    assert [rank["median"] for rank in divided["ranks_s"]] == [4.5, 4.5]
    assert divided["attention_s"]["median"] == 6.0
    assert divided["over_mean"]["median"] == pytest.approx(4 / 3)
    assert divided["over_dense_nats"]["median"] == pytest.approx(0.25)
    # 10 s of wall less 4 of attention in the first round, twice that in the second.
    assert divided["predicted_s"]["rest"] == pytest.approx(6.0 + 9.0)
    assert divided["error_percent"]["rest"] == pytest.approx(0.0)
    assert divided["error_percent"]["step"] == pytest.approx(20.0)
    assert divided["planned_s"] == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("layer", "predicted_s", "met"),
    [
        ([1.5, 1.5], 4.6, [True, True, False, True, False]),
        ([1.0, 1.6], 4.8, [False, True, False, True, False]),
        ([1.9, 1.9], 5.8, [True, False, True, True, False]),
        ([1.9, 1.9], 9.0, [True, False, False, False, False]),
    ],
)
def test_aims_are_judged_by_the_worst_row(
    layer: list[float], predicted_s: float, met: list[bool]
) -> None:
    rows = list(found([layer, layer], predicted_s).values())
    assert [aim["met"] for aim in aims(rows).values()] == met
    assert aims([{**row, "context_tokens": 2048} for row in rows]) == {}


def test_predicted_attention_is_what_the_slots_do_not_cost() -> None:
    profile = catalogue_profile("smollm2-135m")
    asked = {"gpus": 2, "device_type": "cpu", "context_tokens": 1024, "method": "contiguous"}
    rates = catalogue_rates(["cpu"], "prefill")["cpu"]
    own = Fitted(rates, 0.0)
    two, three = (
        predicted(plan(profile, budget={"policy": "dense"}, slots=slots, **asked), rates, own)
        for slots in (2, 3)
    )
    assert two.step_s < three.step_s
    two, three = two.attention, three.attention
    # Two groups on one rank and one on the other, however many slots are projected.
    assert two.ranks_s == pytest.approx(three.ranks_s)
    assert two.slowest_s == pytest.approx(two.ranks_s[0], rel=1e-3)
    assert two.ranks_s[0] / two.ranks_s[1] == pytest.approx(2.0, rel=0.02)


def test_a_slower_round_takes_as_much_longer_in_all_its_parts() -> None:
    profile = catalogue_profile("smollm2-135m")
    rates = catalogue_rates(["cpu"], "prefill")["cpu"]
    twice = {name: 2 * each for name, each in rates.seconds_per.items()}
    asked = {"gpus": 2, "device_type": "cpu", "context_tokens": 1024, "slots": 2}
    budget = {"policy": "uniform", "tokens": 256}
    request = request_of(profile, method="contiguous", budget=budget, **asked)
    made = make_plan(request, [{"cpu": rates}])
    was = predicted(made, rates, Fitted(rates, 0.0))
    now = predicted(made, rates, Fitted(rates.model_copy(update={"seconds_per": twice}), 0.0))
    assert now.attention.ranks_s == pytest.approx([2 * each for each in was.attention.ranks_s])
    assert now.step_s == pytest.approx(2 * was.step_s)
    assert made.whole_step is not None
    assert was.step_s == pytest.approx(made.whole_step.step_s, rel=1e-3)


def test_ranks_that_are_as_loaded_wait_for_what_rates_are_wrong_by() -> None:
    profile = catalogue_profile("smollm2-135m")
    rates = catalogue_rates(["cpu"], "prefill")["cpu"]
    asked = {"gpus": 2, "device_type": "cpu", "context_tokens": 2048, "slots": 2}
    dense = {"policy": "dense"}
    for rules, waits in (({"divisible": True}, True), ({"method": "contiguous"}, False)):
        made = plan(profile, budget=dense, **asked, **rules)
        sure, unsure = (predicted(made, rates, Fitted(rates, error)) for error in (0.0, 0.05))
        # Of two equal normal loads the larger is 0.56 standard deviations above their mean.
        more = 0.05 * 0.56 if waits else 0.0
        grown = unsure.attention.slowest_s / sure.attention.slowest_s - 1
        assert grown == pytest.approx(more, abs=0.006)
        assert unsure.step_s - sure.step_s == pytest.approx(
            unsure.attention.slowest_s - sure.attention.slowest_s
        )
        assert unsure.attention.ranks_s == sure.attention.ranks_s
        # A core that has half the time for it makes attention, and nothing else, take twice that.
        shared = predicted(made, rates, Fitted(rates, 0.0, 2.0))
        assert shared.attention == sure.attention
        assert shared.step_s - sure.step_s == pytest.approx(sure.attention.slowest_s)


def test_every_layer_is_timed_once_a_round_and_rates_come_back() -> None:
    profile = catalogue_profile("smollm2-135m")
    asked = {"gpus": 2, "device_type": "cpu", "context_tokens": 512, "method": "contiguous"}
    budgets = ({"policy": "dense"}, {"policy": "uniform", "tokens": 128})
    made = [plan(profile, budget=each, **asked) for each in budgets]
    calibration = Calibration(made, 3, range(2))
    timed = [each for place in range(3) for each in calibration.time(1, place)]
    attention = [each for each in timed if each.alone is None]
    assert {each.round for each in timed} == {1}
    works = [work for each in made for layer in range(30) for work in shard_work(each, layer)]
    flops = sum(work[INDEX["dense_tile_flops"]] for work in works)
    assert sum(each.work[INDEX["dense_tile_flops"]] for each in attention) == pytest.approx(flops)
    assert len(attention) == len(works)
    assert all(each.seconds > 0 and not each.work[INDEX["link_bytes"]] for each in attention)
    true = catalogue_rates(["cpu"], "prefill")["cpu"].vector
    seconds = [float(true @ each.work) for each in timed]
    exact = [replace(e, seconds=s, wall_s=1.5 * s) for e, s in zip(timed, seconds, strict=True)]
    own = fitted(exact, 512)
    for each in exact:
        assert own.rates.seconds(np.array(each.work)) == pytest.approx(each.seconds, rel=0.02)
    assert own.error < 0.02
    assert own.wall_per_s == pytest.approx(1.5)
    # The same layers again, a fifth slower.
    slower = [replace(each, seconds=1.2 * each.seconds) for each in exact]
    assert 0.1 / 1.1 < fitted([*exact, *slower], 512).error < 0.2 / 2**0.5


def test_a_layer_of_ranks_is_what_the_plan_counts_around_attention() -> None:
    profile = catalogue_profile("smollm2-135m")
    shape, tokens = profile.architecture, 512
    made = plan(profile, gpus=2, device_type="cpu", context_tokens=tokens, method="contiguous")
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        timed = Calibration([made], 10, [0]).time(0, 0)
    finally:
        dist.destroy_process_group()
    assert [each.alone for each in timed] == [PROJECTED, REDUCED, None] * 3
    assert all(each.seconds > 0 for each in timed)
    products, reduced, _ = (np.array(each.work) for each in timed[:3])
    rates = catalogue_rates(["cpu"], "prefill")
    rest = rest_of_step(shape, made.workload.workload, ["cpu"] * 2, rates)
    assert rest is not None
    assert shape.layers * rates["cpu"].seconds(reduced) == pytest.approx(rest.all_reduce_s)
    # Two slots a rank project three groups' worth of heads and one more.
    expected = rest.projections_s * 4 / 3 + rest.mlp_s
    assert shape.layers * rates["cpu"].seconds(products) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "512", "2048,", "2048,x", "-4096"])
def test_contexts_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="1024 or more"):
        lengths(text)
    assert lengths("1024,8192") == [1024, 8192]


def test_the_rows_that_aims_are_for_are_there() -> None:
    assert {BASE, DIVIDED, DIVIDED_DENSE} <= {row.name for row in ROWS}


def test_lists_are_equal_where_the_one_rank_that_has_them_chose_alike() -> None:
    alone = {(0, 0, 3): 7, (0, 0, 4): 8, (0, 1, 3): 9, (0, 1, 4): 1}
    first, second = {(0, 0, 3): 7, (0, 0, 4): 5}, {(0, 1, 3): 9, (0, 1, 4): 1}
    assert equal_lists([first, second], alone) == {"lists": 4, "equal": 0.75}
    assert equal_lists([{}, {}], {}) == {"lists": 0, "equal": None}
    for ranks in ([first], [first, second | {(0, 0, 3): 7}]):
        with pytest.raises(ValueError, match="each on one rank"):
            equal_lists(ranks, alone)
