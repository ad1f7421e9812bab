"""Anyone's plan: whatever the JSON holds, faults in words and no crash."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import solver.verifier
from solver import plans
from solver.verifier import form, verify
from tests.solver.verifier.handmade import DIVIDED, Json, handmade, sealed
from tests.solver.verifier.lies import left_out, parent, told
from tests.solver.verifier.placing import Served
from tests.solver.verifier.test_reports import HONEST as REPORTED

PLAN = handmade(DIVIDED, served=[Served(weight=0.5), Served(weight=0.5)], retention="full")
JUNK = [None, True, -1, 0, 0.5, 1e300, float("nan"), float("inf"), 10**400, "", "x", [], [[]], {}]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path in the JSON, inner ones too."""
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    return found + [deeper for key, part in inner for deeper in leaves(part, (*path, key))]


@pytest.mark.parametrize("plan", [PLAN, REPORTED], ids=["workloads", "reports"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_junk_anywhere_is_a_fault(plan: Json, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(leaves(plan)))
    junk = data.draw(st.sampled_from(JUNK))
    spoiled = copy.deepcopy(plan)
    target = parent(spoiled, path)
    same = type(target[path[-1]]) is type(junk) and target[path[-1]] == junk
    target[path[-1]] = junk
    assert same or path[0] in ("solve_s", "created_at") or verify(spoiled).faults
    if junk != 10**400:  # which JSON cannot be written with either
        assert all(isinstance(fault, str) and fault for fault in verify(sealed(spoiled)).faults)


@pytest.mark.parametrize("name", ["step_s", "contiguous_step_s"])
def test_a_step_that_takes_no_time_is_a_fault(name: str) -> None:
    spoiled = copy.deepcopy(REPORTED)
    spoiled["whole_step"][name] = 0
    assert f"whole_step: {name} 0, but a step takes time" in verify(sealed(spoiled)).faults


def test_a_missing_field_is_named() -> None:
    for path in leaves(PLAN):
        named = [str(step) for step in path if isinstance(step, str)]
        if len(named) < len(path) or named[0] == "cost_model":
            continue
        faults = told(PLAN, left_out(*path))
        assert _optional(path) or f"{'.'.join(named)}: is missing" in faults, (path, faults)


def _optional(path: tuple[Any, ...]) -> bool:
    """Whether a field may be left out, read off a plan's model."""
    model: Any = plans.Plan
    for step in path[:-1]:
        model = model.model_fields[step].annotation
        model = next((m for m in getattr(model, "__args__", ()) if _is_model(m)), model)
    return not model.model_fields[path[-1]].is_required()


def _is_model(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, BaseModel)


@pytest.mark.parametrize("junk", [*JUNK, {"id": 3}, {"layers": {}}])
def test_what_is_no_plan_at_all(junk: Any, tmp_path: Path) -> None:
    if not isinstance(junk, str):  # which would be a path
        assert verify(junk).faults
    if junk != 10**400:  # which JSON cannot be written with
        path = tmp_path / "junk.json"
        path.write_text(json.dumps(junk))
        assert verify(path).faults


def test_a_type_it_does_not_know_in_python() -> None:
    assert any("not JSON" in fault for fault in verify({**PLAN, "warnings": [object()]}).faults)


def test_costs_of_nothing() -> None:
    plan = copy.deepcopy(PLAN)
    text = json.dumps(plan["costs"])
    for costs in (plan["costs"], *(other["costs"] for other in plan["other_workloads"])):
        costs.update(_zeros(json.loads(text)))
    assert any("every load 0" in fault for fault in verify(sealed(plan)).faults)


def _zeros(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _zeros(part) for key, part in value.items()}
    return [_zeros(part) for part in value] if isinstance(value, list) else 0.0


def test_every_field_of_a_plan_is_read() -> None:
    """A field that is added to the plan must be checked here, or at least known."""
    everything, misread = form.read_plan(REPORTED)
    assert misread == []
    assert set(everything) == set(plans.Plan.model_fields)
    for name, model in {
        "rules": plans.Rules,
        "costs": plans.Costs,
        "workload": plans.Step,
        "profile": plans.ProfileRef,
        "architecture": plans.Architecture,
        "memory": plans.Memory,
        "moving": plans.Moving,
        "loss": plans.PromisedLoss,
        "filled": plans.Filled,
        "elastic": plans.Elastic,
        "elsewhere": plans.Elsewhere,
        "nodes": plans.Nodes,
    }.items():
        assert set(everything[name]) == set(model.model_fields), name
    assert set(everything["layers"][0]) == set(plans.LayerPlan.model_fields)
    other = form.read_plan(PLAN)[0]["other_workloads"][0]
    assert set(other) == set(plans.OtherWorkload.model_fields)


def test_it_shares_no_code_with_the_solvers() -> None:
    for path in Path(solver.verifier.__file__).parent.glob("*.py"):
        for line in path.read_text().splitlines():
            if line.startswith(("import ", "from ")):
                module = line.split()[1]
                own = module.startswith("solver.verifier.")
                assert own or module.split(".")[0] in sys.stdlib_module_names, line
