"""Heads are dense where choosing costs what it saves, by the rates in force; plans say so."""

from typing import Any

import numpy as np
import pytest

from profiles.architecture import Architecture
from profiles.cost.rates import Rates
from profiles.cost.work import FEATURES, Workload
from profiles.heads import BudgetsForm
from profiles.model import ModelProfile
from profiles.selection import SAMPLED, Selection, SinkLocal
from solver.budgets.allocate import Budgets
from solver.budgets.dense_where_cheaper import dense_where_cheaper
from solver.planning.planner import make_plan
from solver.request import PlanRequest

SHAPE = Architecture(layers=2, query_heads=4, kv_heads=2, head_dim=64, hidden_size=512)
TOKENS = np.array([[256, 512, 4096, 256], [8192, 256, 512, 512]])


def rates(device: str = "h200", **seconds_per: float) -> Rates:
    per = dict.fromkeys(FEATURES, 0.0) | {"launches": 1e-6, "kv_bytes": 1e-12} | seconds_per
    return Rates(device=device, phase="decode", seconds_per=per, source="planted")


def dense(
    scored_s: float,
    workload: Workload,
    selection: Selection = SAMPLED,
    shape: Architecture = SHAPE,
    **others: Rates,
) -> Budgets:
    known = {"h200": rates(scored_blocks=scored_s), **others}
    budgets = Budgets(TOKENS, np.full(TOKENS.shape, 0.9), ())
    return dense_where_cheaper(budgets, shape, workload, selection, known, [*known])


STEP = Workload(8192, "decode")
BYTES = 2 * 64 * 2
"""Of K and V of a token."""


@pytest.mark.parametrize(
    ("scored", "chosen"), [(0.0, [0, 0, 0]), (0.6, [0, 1, 0]), (1.2, [1, 1, 1])]
)
def test_a_group_is_dense_where_scoring_costs_what_its_longest_list_leaves_out(scored, chosen):
    """Two heads score 128 pieces; the lists leave out 7,680, 4,096 and 7,680 tokens' K and V."""
    found = dense(scored * 7680 * BYTES * 1e-12 / (2 * 128), STEP)
    groups = (found.tokens == 8192).reshape(2, 2, 2).all(axis=2)
    # The second layer's first group holds a head that attends to all: it saves nothing.
    assert groups.tolist() == [[bool(chosen[0]), bool(chosen[1])], [True, bool(chosen[2])]]
    assert (found.tokens[~np.repeat(groups, 2, axis=1)] == TOKENS[~np.repeat(groups, 2, 1)]).all()
    assert (found.recovery == np.where(np.repeat(groups, 2, axis=1), 1.0, 0.9)).all()
    assert len(found.warnings) == groups.any()


def test_it_must_pay_on_no_type_of_device() -> None:
    cheap = rates("a100", scored_blocks=1e-15)
    assert (dense(1.0, STEP).tokens == 8192).all()
    mixed = dense(1.0, STEP, a100=cheap).tokens
    assert (mixed[0] == TOKENS[0]).all()


def test_rules_stay_sparse() -> None:
    for workload in (STEP, Workload(8192)):
        assert (dense(1.0, workload, SinkLocal(sink_tokens=64)).tokens == TOKENS).all()


@pytest.mark.parametrize("gathered", [1.0, 1.5, 3.0])
def test_a_head_of_a_prefill_is_dense_where_its_gathered_tiles_cost_more(gathered: float) -> None:
    """Each for itself: the group's other heads stay sparse. Scoring is free here."""
    workload = Workload(8192)
    budgets = np.arange(1, 129).reshape(1, -1) * 64
    shape = SHAPE.model_copy(update={"layers": 1, "query_heads": 128, "hidden_size": 8192})
    known = {"h200": rates(dense_tile_flops=1e-12, gathered_tile_flops=gathered * 1e-12)}
    given = Budgets(budgets, None, ())
    found = dense_where_cheaper(given, shape, workload, SAMPLED, known, ["h200"]).tokens[0]
    first = int((found < 8192).sum())
    assert (found[:first] == budgets[0, :first]).all()
    # Rows i list min(b, i) gathered tiles and their own; those before i = b list everything.
    b = np.arange(1, 129)
    left_out = (128 - b) * (129 - b) / 2
    listed = (128 - b) * (b - 1)
    cheaper = left_out > (gathered - 1) * listed
    assert first == cheaper.sum()


def planned(scored_s: float, budget: dict[str, Any] | None = None, **placement: Any):
    profile = ModelProfile(
        name="tested",
        architecture=SHAPE,
        heads=BudgetsForm(tokens=TOKENS.tolist()),
        selection=SAMPLED,
        source="a test",
        synthetic=True,
    )
    asked = {"profile": profile, "gpus": 2, "context_tokens": 8192, "phase": "decode"}
    asked |= {"method": "greedy", "placement": placement, "budget": budget or {}}
    request = PlanRequest.model_validate(asked)
    return make_plan(request, [{"h200": rates(scored_blocks=scored_s)}])


def test_a_plan_says_that_its_decode_is_dense_unless_keys_are_evicted() -> None:
    plan = planned(1e-6)
    assert plan.budgets == [[8192] * 4] * 2
    assert any("4 of 4 KV groups attend to everything" in note for note in plan.warnings)
    assert planned(1e-15).budgets == [TOKENS[0].tolist(), [8192, 8192, 512, 512]]
    evicting = planned(1e-6, memory={"kv_retention": "budget"})
    assert evicting.budgets == TOKENS.tolist()
    assert planned(1e-6, budget={"as_chosen": True}).budgets == TOKENS.tolist()


def test_a_layer_with_a_window_stays_within_it() -> None:
    hybrid = SHAPE.model_copy(update={"windows": (None, 512)})
    found = dense(1.0, STEP, shape=hybrid).tokens
    assert (found[0] == 8192).all()
    assert (found[1] == TOKENS[1]).all()
