"""Plans say how blocks are chosen, and plans made before they did still hold."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from profiles.model import ModelProfile
from profiles.selection import (
    POOLED,
    SAMPLED,
    Sampled,
    Selection,
    SinkLocal,
    Strided,
    VerticalSlash,
)
from solver.plans import Plan
from solver.verifier import verify
from tests.solver.profiles import budgets_profile, faults, plan_of
from tests.solver.verifier.handmade import sealed

BEFORE = Path(__file__).with_name("plan_before_selection.json")
STRIDED = Strided(block_tokens=64, local_blocks=16, vert_stride=8, dense_kv_heads=1)


def profile_with(selection: Selection) -> ModelProfile:
    return budgets_profile().model_copy(update={"selection": selection})


@pytest.mark.parametrize(
    "selection", [VerticalSlash(), Sampled(rows=3), SinkLocal(sink_tokens=64), STRIDED]
)
def test_a_plan_carries_its_profiles_selection(selection: Selection) -> None:
    plan = plan_of(profile_with(selection))
    assert plan.selection == selection
    assert Plan.parse(plan.model_dump_json(), "here.json") == plan
    assert faults(plan) == []


def test_every_workload_has_its_own() -> None:
    other = {"context_tokens": 4096, "profile": profile_with(VerticalSlash())}
    plan = plan_of(
        profile_with(SinkLocal(sink_tokens=128)), workloads=[{"context_tokens": 8192}, other]
    )
    assert plan.selection == SinkLocal(sink_tokens=128)
    assert [workload.selection for workload in plan.other_workloads] == [VerticalSlash()]
    assert faults(plan) == []


def test_a_strided_pattern_keeps_no_budgets_but_its_own() -> None:
    uniform = {"policy": "uniform", "tokens": 1024}
    assert plan_of(profile_with(STRIDED), budget=uniform).selection == SAMPLED
    assert plan_of(profile_with(VerticalSlash()), budget=uniform).selection == VerticalSlash()


def test_pooled_leaves_no_trace() -> None:
    assert "selection" not in json.loads(plan_of(budgets_profile()).model_dump_json())


def test_a_plan_made_before_selections_keeps_its_id_and_verifies() -> None:
    text = BEFORE.read_text()
    plan = Plan.parse(text, str(BEFORE))
    assert verify(json.loads(text)).faults == []
    assert plan.selection == plan.other_workloads[0].selection == POOLED
    assert plan.identified().id == plan.id
    assert faults(plan) == []


@pytest.mark.parametrize(
    ("selection", "fault"),
    [
        (None, "selection.kind: is not one of pooled"),
        ("pooled", "selection.kind: is not one of pooled"),
        ({"kind": ["pooled"]}, "selection.kind: is not one of pooled"),
        ({"kind": "sink_local"}, "selection.sink_tokens: is missing"),
        ({"kind": "sampled", "rows": 17}, "selection.rows: is not a whole"),
        ({"kind": "sampled", "rows": 0.5}, "selection.rows: is not a whole"),
        (STRIDED.model_dump() | {"vert_stride": 0}, "selection.vert_stride: is not a whole"),
        (STRIDED.model_dump() | {"dense_kv_heads": 0.5}, "selection.dense_kv_heads: is not a w"),
    ],
)
def test_the_verifier_reads_it(selection: Any, fault: str) -> None:
    plan = copy.deepcopy(json.loads(BEFORE.read_text()))
    for place, where in ((plan, ""), (plan["other_workloads"][0], "other_workloads.0.")):
        place["selection"] = selection
        assert any(found.startswith(where + fault) for found in verify(sealed(plan)).faults)
        del place["selection"]
