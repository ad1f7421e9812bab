"""Lies about whole heads under one workload."""

import copy

import pytest

from solver.plans import Rules
from solver.verifier import verify
from tests.solver.verifier.handmade import Json, handmade, sealed
from tests.solver.verifier.lies import Lies, add, set_to, told

HONEST = handmade()
REPORTS = ("memory", "moving", "filled", "elsewhere", "nodes")


def test_a_changed_content_breaks_the_id() -> None:
    plan = {**copy.deepcopy(HONEST), "solver": "ilp"}
    assert any("SHA-256" in fault for fault in verify(plan).faults)


def test_timings_do_not_count_towards_the_id() -> None:
    assert verify({**HONEST, "solve_s": 3.0, "created_at": "today"}).faults == []


def test_a_plan_from_before_the_options_is_accepted() -> None:
    """It lacks their fields, and its id is that of the content without them."""
    added = {"divisions", "weight", "other_workloads", *REPORTS}
    old = {name: value for name, value in HONEST.items() if name not in added}
    old["costs"] = {name: value for name, value in old["costs"].items() if name != "part_s"}
    old["rules"] = {name: old["rules"][name] for name in ("unit", "equal_counts")}
    old["layers"] = [
        {
            **layer,
            "heads": [[{"device": part["device"]} for part in head] for head in layer["heads"]],
        }
        for layer in old["layers"]
    ]
    assert verify(sealed(old)).faults == []


def other_device(plan: Json) -> None:
    entry = plan["layers"][0]["heads"][0][0]
    entry["device"] = (entry["device"] + 1) % 3


def raise_bound(plan: Json) -> None:
    layer = plan["layers"][0]
    layer["bound"], layer["lower_bound_s"] = "mean load", layer["makespan_s"]


LIES: Lies = {
    "a head moved": (other_device, "recomputed"),
    "a device that is not there": (set_to(7, "layers", 0, "heads", 0, 0, "device"), "not among"),
    "half a head": (set_to(0.5, "layers", 0, "heads", 0, 0, "share"), "do not add up"),
    "nothing of a head": (set_to(0.0, "layers", 0, "heads", 0, 0, "share"), "not positive"),
    "a head on no device": (set_to([], "layers", 0, "heads", 0), "do not add up"),
    "a head left out": (lambda p: p["layers"][0]["heads"].pop(), "heads: not of shape (8,)"),
    "a window beyond which budgets go": (
        set_to([None, 1, None], "architecture", "windows"),
        "is beyond the window of 1",
    ),
    "windows of fewer layers": (
        set_to([1], "architecture", "windows"),
        "architecture.windows: not of shape (3,)",
    ),
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
    "groups of unequal size": (set_to(3, "architecture", "kv_heads"), "not a multiple"),
    "anything is optimal": (set_to(5.0, "tolerance"), "tolerance"),
    "a bound its proof does not give": (raise_bound, "which gives"),
    "the same device twice": (
        set_to([{"device": 0, "share": 0.5}] * 2, "layers", 0, "heads", 0),
        "twice",
    ),
    "a head divided": (
        set_to([{"device": d, "share": 0.5} for d in (0, 1)], "layers", 0, "heads", 0),
        "not divisible",
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
    "fewer copies": (add(-1, "kv_copies", 0), "kv_copies"),
    "fewer bytes": (add(-1, "kv_bytes", 0), "kv_bytes"),
    "stock compatible": (set_to(True, "stock_compatible"), "stock_compatible"),
    "a budget of half a block": (set_to(100, "budgets", 0, 0), "whole pieces"),
    "a budget above the context": (set_to(8256, "budgets", 0, 0), "whole pieces"),
    "cheaper heads": (set_to(0.0, "costs", "head_s", 0, 0, 0), "recomputed"),
    "groups kept whole": (set_to("kv_group", "rules", "unit"), "several devices"),
    "copies for free": (set_to("free", "rules", "copies"), "group_s charges"),
    "a division": (set_to([1, 0, 0], "divisions"), "divisions 1, counted 0"),
}


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_is_found(lie: str) -> None:
    tamper, words = LIES[lie]
    faults = told(HONEST, tamper)
    assert any(words in fault for fault in faults), faults


@pytest.mark.parametrize("unit", ["head", "kv_group"])
def test_unequal_counts_are_found(unit: str) -> None:
    equal = Rules.model_validate({"unit": unit, "equal_counts": True})
    assert verify(handmade(equal)).faults == []
    free = handmade(equal.model_copy(update={"equal_counts": False}), seed=2)
    assert any(
        "equal_counts, but devices have" in fault
        for fault in told(free, set_to(True, "rules", "equal_counts"))
    )
