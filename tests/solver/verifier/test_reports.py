"""Lies about memory, nodes, moving, filled budgets and the other deployment."""

import pytest

from solver.plans import Elastic, Elsewhere, Filled, Moving, PromisedLoss, Recovered, WholeStep
from solver.verifier import verify
from tests.solver.verifier.handmade import DIVIDED, Json, handmade, sealed
from tests.solver.verifier.lies import Lies, add, set_to, told

FULL = handmade(
    DIVIDED, types=("h200",) * 4, deployment="tensor_parallel", retention="full", node_size=2
)
EVICTING = handmade(DIVIDED, seed=1, retention="budget")


def ruled(plan: Json) -> Elastic:
    """Rules that give a plan's budgets at any context."""
    return Elastic(
        alpha=plan["budgets"],
        beta=[[0.0] * len(layer) for layer in plan["budgets"]],
        loss=1.0,
        lower_bound=0.99,
        density=[0.5],
        contexts=[plan["workload"]["context_tokens"]],
    )


def around(plan: Json) -> WholeStep:
    """A step of which the placement, or heads in order, is three quarters attention."""
    costs = plan["costs"]
    [launch_s] = costs["launch_s"]
    heads, devices = plan["architecture"]["query_heads"], len(plan["devices"])
    size = heads // plan["architecture"]["kv_heads"]
    assert heads % devices == 0
    each = heads // devices
    in_order_s = 0.0
    for head_s, group_s in zip(costs["head_s"], costs["group_s"], strict=True):
        loads = []
        for first in range(0, heads, each):
            own = range(first, first + each)
            groups = {head // size for head in own}
            charges_s = sum(group_s[group][0] for group in groups)
            loads.append(launch_s + charges_s + sum(head_s[head][0] for head in own))
        in_order_s += max(loads)
    step_s, stock_s = plan["makespan_s"] + 0.3, in_order_s + 0.3
    return WholeStep(
        step_s=step_s,
        attention_s=0.75 * plan["makespan_s"],
        projections_s=0.25 * plan["makespan_s"],
        mlp_s=0.2,
        all_reduce_s=0.1,
        contiguous_step_s=stock_s,
        contiguous_attention_s=0.75 * in_order_s,
        contiguous_projections_s=0.25 * in_order_s,
        attention_share=0.75 * in_order_s / stock_s,
        gain=stock_s / step_s - 1,
    )


def reported() -> Json:
    """The full plan with everything else that a plan may report."""
    reports = {
        "moving": Moving(
            current_plan="c" * 64,
            bytes=1000,
            seconds=0.1,
            amortise_steps=100,
            current_makespan_s=FULL["makespan_s"] + 0.25,
            gain_s=0.25,
            kept=False,
        ),
        "filled": Filled(added_tokens=640, recovery_mean=(0.9, 0.95), recovery_min=(0.5, 0.5)),
        "recovery": Recovered(
            curve="selected", mean=[0.95] * len(FULL["layers"]), least=[0.5] * len(FULL["layers"])
        ),
        "loss": PromisedLoss(bound=0.05, nats=0.04, low=0.03, high=0.05),
        "elastic": ruled(FULL),
        "elsewhere": Elsewhere(
            deployment="disaggregated", makespan_s=0.3, replanned_s=0.2, lower_bound_s=0.1
        ),
        "whole_step": around(FULL),
    }
    return sealed({**FULL, **{name: r.model_dump(mode="json") for name, r in reports.items()}})


HONEST = reported()
LIES: Lies = {
    "a byte of weights": (add(-1, "memory", "weight_bytes", 0), "memory: weight_bytes of device 0"),
    "weights of another deployment": (
        set_to("disaggregated", "workload", "deployment"),
        "memory: weight_bytes",
    ),
    "a byte of K/V": (add(-1, "memory", "kv_bytes", 3), "memory: kv_bytes of device 3"),
    "a byte above the limit": (add(-1, "memory", "limit_bytes", 1), "memory: device 1:"),
    "a smaller batch": (set_to(1, "memory", "batch_size"), "memory: kv_bytes"),
    "a shorter context": (set_to(64, "memory", "context_tokens"), "memory: kv_bytes"),
    "evicting keys": (set_to("budget", "memory", "kv_retention"), "memory: kv_bytes"),
    "the limit of a device left out": (
        lambda p: p["memory"]["limit_bytes"].pop(),
        "memory.limit_bytes: not of shape",
    ),
    "fewer copies across nodes": (add(-1, "nodes", "cross_node_copies", 0), "cross_node_copies"),
    "copies of a layer left out": (
        lambda p: p["nodes"]["cross_node_copies"].pop(),
        "nodes.cross_node_copies",
    ),
    "nodes of another size": (set_to(4, "nodes", "size"), "cross_node_copies"),
    "nodes that do not fit": (set_to(3, "nodes", "size"), "does not divide"),
    "replicas too many": (set_to(3, "nodes", "replicas"), "replicas 3, but there are 2 nodes"),
    "a replica below its bound": (
        set_to(1e-6, "nodes", "replica_makespan_s"),
        "replica_lower_bound_s",
    ),
    "more gained": (add(0.1, "moving", "gain_s"), "moving: gain_s"),
    "a slower plan to leave": (add(0.1, "moving", "current_makespan_s"), "moving: gain_s"),
    "bytes gained by moving": (set_to(-1, "moving", "bytes"), "moving.bytes"),
    "time gained by moving": (set_to(-0.1, "moving", "seconds"), "moving.seconds"),
    "recovery lost": (set_to([0.95, 0.9], "filled", "recovery_mean"), "filled: recovery_mean"),
    "the least recovery lost": (set_to([0.5, 0.4], "filled", "recovery_min"), "recovery_min falls"),
    "tokens taken away": (set_to(-64, "filled", "added_tokens"), "filled.added_tokens"),
    "before without after": (set_to([0.9], "filled", "recovery_mean"), "filled.recovery_mean"),
    "a least head above the mean": (
        set_to(0.96, "recovery", "least", 0),
        "recovery: layer 0: least 0.96 is above mean 0.95",
    ),
    "recovery of a layer left out": (
        lambda p: p["recovery"]["mean"].pop(),
        "recovery.mean: not of shape",
    ),
    "recovery that is not what filling brought": (
        set_to(0.99, "recovery", "mean", 0),
        "but filled.recovery_mean ends at 0.95",
    ),
    "a loss above its bound": (
        set_to(0.04, "loss", "bound"),
        "loss: high 0.05 is above bound 0.04",
    ),
    "a loss above its interval": (
        set_to(0.06, "loss", "nats"),
        "loss: nats 0.06 is above high 0.05",
    ),
    "no loss at all": (set_to(-0.01, "loss", "low"), "loss.low"),
    "recovery by nobody's curve": (set_to("best", "recovery", "curve"), "recovery.curve"),
    "rules better than proved": (set_to(0.5, "elastic", "loss"), "elastic: lower_bound"),
    "rules of a layer left out": (lambda p: p["elastic"]["alpha"].pop(), "elastic: alpha"),
    "better than proved elsewhere": (set_to(0.05, "elsewhere", "replanned_s"), "elsewhere: lower"),
    "more gained of the step": (add(0.01, "whole_step", "gain"), "whole_step: gain"),
    "a larger share": (add(0.01, "whole_step", "attention_share"), "whole_step: attention_share"),
    "a shorter MLP": (add(-0.1, "whole_step", "mlp_s"), "whole_step: step_s"),
    "less attention": (add(-0.01, "whole_step", "attention_s"), "but the loads make"),
    "a slower stock layout": (
        add(0.01, "whole_step", "contiguous_projections_s"),
        "whole_step: contiguous_step_s",
    ),
    "elsewhere is here": (
        set_to("tensor_parallel", "elsewhere", "deployment"),
        "the plan's own deployment",
    ),
}


def test_rules_that_do_not_give_the_budgets_are_found() -> None:
    rules = ruled(EVICTING).model_dump(mode="json")
    assert verify(sealed({**EVICTING, "elastic": rules})).faults == []
    rules["alpha"][0][1] += EVICTING["workload"]["block_tokens"]
    [fault] = verify(sealed({**EVICTING, "elastic": rules})).faults
    assert fault == "elastic: layer 0, head 1: the rule does not give its budget"


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_is_found(lie: str) -> None:
    tamper, words = LIES[lie]
    faults = told(HONEST, tamper)
    assert any(words in fault for fault in faults), faults


def test_a_placement_that_is_kept_moves_and_gains_nothing() -> None:
    still = {
        **HONEST["moving"],
        "kept": True,
        "bytes": 0,
        "seconds": 0.0,
        "current_makespan_s": HONEST["makespan_s"],
        "gain_s": 0.0,
    }
    assert verify(sealed({**HONEST, "moving": still})).faults == []
    [fault] = verify(sealed({**HONEST, "moving": {**still, "bytes": 10**9}})).faults
    assert "kept, but 1000000000 bytes are moved" in fault
    [fault] = verify(sealed({**HONEST, "moving": {**still, "gain_s": 123.0}})).faults
    assert "gain_s 123.0" in fault


def test_budgets_kept_are_those_on_the_device() -> None:
    """Every head keeps its whole budget, so a larger one is seen wherever it is hungriest."""
    assert EVICTING["memory"]["weight_bytes"] == [0, 0, 0]
    faults = told(EVICTING, set_to("full", "memory", "kv_retention"))
    assert faults
    assert all(fault.startswith("memory: ") for fault in faults), faults
