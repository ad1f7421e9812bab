"""The verifier finds every lie that is told to it."""

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from solver.verify import verify
from tests.solver.profiles import budgets_profile, plan_of

Json = dict[str, Any]
HONEST: Json = json.loads(plan_of(budgets_profile(), gpus=3, method="greedy").model_dump_json())


def sealed(plan: Json) -> Json:
    """Give a tampered plan the id of its content, so that only the lie itself can be found."""
    content = {k: v for k, v in plan.items() if k not in ("id", "solve_s", "created_at")}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {**plan, "id": hashlib.sha256(text.encode()).hexdigest()}


def test_an_honest_plan_is_accepted() -> None:
    assert verify(HONEST) == []
    assert verify(sealed(HONEST)) == []


def test_a_changed_content_breaks_the_id() -> None:
    plan = {**copy.deepcopy(HONEST), "solver": "ilp"}
    assert any("SHA-256" in fault for fault in verify(plan))


def other_device(plan: Json) -> None:
    entry = plan["layers"][0]["heads"][0][0]
    entry["device"] = (entry["device"] + 1) % 3


def set_to(value: object, *path: str | int) -> Callable[[Json], None]:
    def change(plan: Json) -> None:
        target: Any = plan
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return change


def raise_bound(plan: Json) -> None:
    layer = plan["layers"][0]
    layer["bound"], layer["lower_bound_s"] = "mean load", layer["makespan_s"]


LIES: dict[str, tuple[Callable[[Json], None], str]] = {
    "a head moved": (other_device, "recomputed"),
    "a device that is not there": (set_to(7, "layers", 0, "heads", 0, 0, "device"), "not among"),
    "half a head": (set_to(0.5, "layers", 0, "heads", 0, 0, "share"), "do not add up"),
    "a head left out": (lambda p: p["layers"][0]["heads"].pop(), "heads: not of shape (8,)"),
    "a layer left out": (lambda p: p["layers"].pop(), "layers: not of shape (3,)"),
    "a load left out": (lambda p: p["layers"][1]["loads_s"].pop(), "layers.1.loads_s"),
    "budgets left out": (lambda p: p["budgets"][2].pop(), "budgets: not of shape"),
    "copies too many": (lambda p: p["kv_copies"].append(0), "kv_copies: not of shape"),
    "bytes left out": (lambda p: p["kv_bytes"].pop(), "kv_bytes: not of shape"),
    "costs of a layer too many": (
        lambda p: p["costs"]["head_s"].append(p["costs"]["head_s"][0]),
        "costs.head_s",
    ),
    "an unknown type of device": (set_to("tpu", "devices", 0), "device_types"),
    "anything is optimal": (set_to(5.0, "tolerance"), "tolerance"),
    "a bound its proof does not give": (raise_bound, "which gives"),
    "the same device twice": (
        lambda p: p["layers"][0]["heads"].__setitem__(
            0, [{"device": 0, "share": 0.5}, {"device": 0, "share": 0.5}]
        ),
        "twice",
    ),
    "a smaller load": (set_to(0.0, "layers", 1, "loads_s", 0), "device 0: load"),
    "a smaller layer makespan": (set_to(1e-9, "layers", 1, "makespan_s"), "makespan"),
    "a smaller makespan": (set_to(1e-9, "makespan_s"), "makespan_s"),
    "a bound above the makespan": (set_to(9.0, "layers", 0, "lower_bound_s"), "above"),
    "a bound above its layers'": (set_to(1.0, "lower_bound_s"), "above the sum"),
    "a smaller gap": (set_to(0.9, "gap"), "gap"),
    "optimal with a gap": (set_to("optimal", "status"), "status optimal"),
    "a smaller bubble": (set_to(0.0, "bubble_ratio"), "bubble_ratio"),
    "no imbalance": (set_to(1.0, "imbalance"), "imbalance"),
    "imbalance withheld": (set_to(None, "imbalance"), "imbalance"),
    "fewer copies": (set_to(0, "kv_copies", 0), "kv_copies"),
    "fewer bytes": (set_to(0, "kv_bytes", 0), "kv_bytes"),
    "stock compatible": (set_to(True, "stock_compatible"), "stock_compatible"),
    "a budget of half a block": (set_to(100, "budgets", 0, 0), "whole blocks"),
    "a budget above the context": (set_to(8256, "budgets", 0, 0), "whole blocks"),
    "cheaper heads": (set_to(0.0, "costs", "head_s", 0, 0, 0), "recomputed"),
    "groups kept whole": (set_to("kv_group", "rules", "unit"), "several devices"),
}


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_is_found(lie: str) -> None:
    tamper, words = LIES[lie]
    plan = copy.deepcopy(HONEST)
    tamper(plan)
    assert any(words in fault for fault in verify(sealed(plan))), verify(sealed(plan))


def test_unequal_counts_are_found() -> None:
    lopsided = budgets_profile(layers=1, heads=4)
    heads = lopsided.heads.model_copy(update={"tokens": [[8192.0, 64.0, 64.0, 64.0]]})
    free = plan_of(lopsided.model_copy(update={"heads": heads}), gpus=2, method="greedy")
    plan: Json = json.loads(free.model_dump_json())
    assert sum(h[0]["device"] == 0 for h in plan["layers"][0]["heads"]) == 1
    plan["rules"]["equal_counts"] = True
    assert any("equal_counts" in fault for fault in verify(sealed(plan)))
