"""Lies about several workloads, weighted or the worst of them."""

import copy
import math

import pytest

from solver.verifier import verify
from tests.solver.verifier.handmade import DIVIDED, Json, handmade, sealed
from tests.solver.verifier.lies import Lies, Tamper, add, left_out, set_to, told
from tests.solver.verifier.placing import Served

SERVED = [
    Served(weight=0.5),
    Served(context_tokens=1000, weight=0.3),
    Served(phase="decode", batch_size=4, weight=0.2),
]
MEAN = handmade(DIVIDED, served=SERVED)
WORST = handmade(DIVIDED.model_copy(update={"objective": "worst"}), served=SERVED)
OTHER = ("other_workloads", 0)


def mean_instead(plan: Json) -> None:
    plan["makespan_s"] = math.fsum(layer["makespan_s"] for layer in plan["layers"])
    plan["gap"] = 1 - plan["lower_bound_s"] / plan["makespan_s"]


def bound_of_the_first(plan: Json) -> None:
    layer = plan["layers"][0]
    layer["lower_bound_s"] = layer["makespan_s"]


def unlike_its_own(plan: Json) -> None:
    """The other workload's shares exactly as planned, not as its own rows have them."""
    plan["other_workloads"][0]["workload"]["context_tokens"] = 1064
    for layer in plan["other_workloads"][0]["budgets"]:
        layer[:] = [1064 if budget == 1000 else budget for budget in layer]


LIES: Lies = {
    "weights that do not add up": (set_to(0.6, "weight"), "weights of the workloads add up to"),
    "a negative weight": (set_to(-0.3, *OTHER, "weight"), "other_workloads.0.weight"),
    "another workload's load off": (
        add(1e-6, *OTHER, "loads_s", 1, 2),
        "other_workloads.0: layer 1: device 2: load",
    ),
    "another workload's makespan off": (
        add(-1e-6, *OTHER, "makespan_s"),
        "other_workloads.0: makespan_s",
    ),
    "a load of the first alone": (add(1e-6, "layers", 0, "loads_s", 0), "layer 0: device 0: load"),
    "another workload's costs": (add(1e-3, *OTHER, "costs", "head_s", 0, 0, 0), "recomputed"),
    "another workload's parts": (set_to([], *OTHER, "costs", "part_s"), "recomputed"),
    "another workload's rows": (unlike_its_own, "other_workloads.0: layer"),
    "another workload's budget": (set_to(65, *OTHER, "budgets", 0, 0), "whole pieces within 1000"),
    "another workload's loads left out": (
        lambda p: p["other_workloads"][0]["loads_s"].pop(),
        "other_workloads.0.loads_s",
    ),
    "another workload's budgets left out": (
        lambda p: p["other_workloads"][1]["budgets"].pop(),
        "other_workloads.1.budgets",
    ),
    "another workload's launches": (
        set_to([], *OTHER, "costs", "launch_s"),
        "other_workloads.0.costs.launch_s",
    ),
    "another deployment": (
        set_to("tensor_parallel", *OTHER, "workload", "deployment"),
        "its deployment",
    ),
    "a workload left out": (left_out(*OTHER), "weights of the workloads add up to"),
    "copies for free": (set_to("free", "rules", "copies"), "other_workloads.1: copies are free"),
    "a bound above the weighted one": (bound_of_the_first, "which gives"),
    "the worst instead of the mean": (set_to("worst", "rules", "objective"), "makespan_s"),
}


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_is_found(lie: str) -> None:
    tamper, words = LIES[lie]
    faults = told(MEAN, tamper)
    assert any(words in fault for fault in faults), faults


@pytest.mark.parametrize(
    "tamper", [mean_instead, set_to("mean", "rules", "objective"), add(-1e-6, "makespan_s")]
)
def test_a_wrong_worst_case_is_found(tamper: Tamper) -> None:
    assert WORST["makespan_s"] > math.fsum(layer["makespan_s"] for layer in WORST["layers"])
    faults = told(WORST, tamper)
    assert any(fault.startswith("makespan_s") for fault in faults), faults


def test_a_part_that_rounds_to_nothing_is_not_charged() -> None:
    """One block of context: of a divided head only one part is left."""
    served = [Served(weight=0.5), Served(context_tokens=64, weight=0.5)]
    plan = handmade(DIVIDED, served=served, types=("h200",) * 6)
    assert verify(plan).faults == []
    assert any(
        0.0 in here and load > 0
        for layer, here in zip(plan["layers"], plan["other_workloads"][0]["loads_s"], strict=True)
        for load, alone in zip(layer["loads_s"], here, strict=True)
        if alone == 0
    )


def test_a_head_keeps_what_any_workload_attends_to() -> None:
    """The second workload may attend to eight times the first's context."""
    served = [Served(context_tokens=512, weight=0.5), Served(context_tokens=4096, weight=0.5)]
    faults = told(
        handmade(DIVIDED, served=served, retention="budget"),
        set_to([[64] * 8] * 3, *OTHER, "budgets"),
    )
    assert any("memory: kv_bytes" in fault for fault in faults), faults


def test_a_bound_is_proved_whatever_proof_it_names() -> None:
    hearsay = copy.deepcopy(MEAN)
    hearsay["layers"][0]["bound"] = "weighted sum of mean load, hearsay"
    verdict = verify(sealed(hearsay))
    assert (verdict.faults, verdict.unproved) == ([], [])


def test_plain_bounds_on_unlike_devices_are_recomputed() -> None:
    plan = handmade(types=("h200", "a100"), served=[Served(weight=0.5)] * 2)
    costs = [plan["costs"], plan["other_workloads"][0]["costs"]]
    every = [
        [[min(s) for s in (*c["head_s"][0], *c["group_s"][0])] for c in costs],
        [min(c["launch_s"]) for c in costs],
    ]
    proved = sum((sum(work) / 2 + launch) / 2 for work, launch in zip(*every, strict=True))

    def bounded(factor: float) -> Tamper:
        def change(tampered: Json) -> None:
            layer = tampered["layers"][0]
            layer["bound"] = "weighted sum of mean of fastest devices"
            layer["lower_bound_s"] = proved * factor
            bound_s = math.fsum(layer["lower_bound_s"] for layer in tampered["layers"])
            tampered["lower_bound_s"] = bound_s
            tampered["gap"] = 1 - bound_s / tampered["makespan_s"]

        return change

    assert told(plan, bounded(1.0)) == []
    assert any("which gives" in fault for fault in told(plan, bounded(1.001)))
