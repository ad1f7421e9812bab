"""Lies about divided heads, and bounds that hold for them."""

import math

import pytest

from solver.plans import Rules
from tests.solver.verifier.handmade import DIVIDED, Json, handmade
from tests.solver.verifier.lies import Lies, Tamper, add, set_to, told
from tests.solver.verifier.placing import Served

HONEST = handmade(DIVIDED)
DECODE = handmade(DIVIDED, served=[Served(phase="decode", batch_size=3)])
LAYER, HEAD = next(
    (layer, head)
    for layer, placed in enumerate(HONEST["layers"])
    for head, entries in enumerate(placed["heads"])
    if len(entries) == 3 and HONEST["budgets"][layer][head] % 128 == 0
)
ENTRIES = ("layers", LAYER, "heads", HEAD)


def shifted(by: float, plan: Json, layer: int = LAYER, head: int = HEAD) -> None:
    """A bit of the first part's work goes to the second."""
    first, second, *_ = plan["layers"][layer]["heads"][head]
    first["share"] -= by
    second["share"] += by


def shifted_by_a_row(plan: Json) -> None:
    """Still whole rows, but the loads are those of other ones."""
    shares = [entry["share"] for entry in plan["layers"][LAYER]["heads"][HEAD]]
    pieces = Served().row_pieces(plan["budgets"][LAYER][HEAD])
    done = [sum(pieces[:row]) / sum(pieces) for row in range(len(pieces) + 1)]
    end = min(range(len(done)), key=lambda row: abs(done[row] - shares[0]))
    shifted(done[end] - done[end - 1], plan)


def in_other_order(plan: Json) -> None:
    entries = plan["layers"][LAYER]["heads"][HEAD]
    entries.insert(0, entries.pop())


def all_on_one(plan: Json) -> None:
    """A bound proved for whole heads is claimed of divided ones."""
    for index, layer in enumerate(plan["layers"]):
        costs = [s[0] for s in plan["costs"]["head_s"][index]]
        layer["bound"], layer["lower_bound_s"] = "largest item", max(costs)


def copies(number: int) -> Tamper:
    return set_to(number, "rules", "max_copies")


LIES: Lies = {
    "half a block of a part": (lambda p: shifted(1e-5, p), "does not end with a row"),
    "a block of a part": (shifted_by_a_row, "recomputed"),
    "rows in another order": (in_other_order, "does not end with a row"),
    "a part left out": (lambda p: p["layers"][LAYER]["heads"][HEAD].pop(), "do not add up"),
    "a part too many": (copies(2), "divided over 3 devices, but max_copies is 2"),
    "heads that stay whole": (set_to(False, "rules", "divisible"), "not divisible"),
    "equal counts of divided heads": (set_to(True, "rules", "equal_counts"), "a head is divided"),
    "part_s forgotten": (set_to([], "costs", "part_s"), "recomputed"),
    "part_s of a layer left out": (lambda p: p["costs"]["part_s"].pop(), "costs.part_s: not of"),
    "a part above the whole": (set_to([1.0], "costs", "part_s", LAYER, HEAD), "above head_s"),
    "cheaper parts": (
        lambda p: p["costs"]["part_s"][LAYER][HEAD].__setitem__(0, 0.0),
        "recomputed",
    ),
    "copies for free": (set_to("free", "rules", "copies"), "part_s charges"),
    "a division too few": (add(-1, "divisions", LAYER), "divisions"),
    "divisions not told": (set_to([], "divisions"), "divisions 0, counted"),
    "divisions of a layer left out": (lambda p: p["divisions"].pop(), "divisions: not of shape"),
    "a part twice": (
        lambda p: p["layers"][LAYER]["heads"][HEAD].__setitem__(
            1, p["layers"][LAYER]["heads"][HEAD][0]
        ),
        "a device twice",
    ),
    "the largest head whole": (all_on_one, "which gives"),
    "a head with no group's charge": (
        lambda p: p["costs"]["group_s"][LAYER].__setitem__(HEAD // 2, [0.0]),
        "recomputed",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_is_found(lie: str) -> None:
    tamper, words = LIES[lie]
    faults = told(HONEST, tamper)
    assert any(words in fault for fault in faults), faults


def test_decode_divides_between_sequences_and_key_blocks() -> None:
    layer, head = next(
        (layer, head)
        for layer, placed in enumerate(DECODE["layers"])
        for head, entries in enumerate(placed["heads"])
        if len(entries) > 1
    )
    units = 3 * DECODE["budgets"][layer][head] // 64
    faults = told(DECODE, lambda plan: shifted(0.5 / units, plan, layer, head))
    assert any("does not end with a row" in fault for fault in faults), faults


@pytest.mark.parametrize("most", [1, 2])
def test_the_largest_part_is_a_bound(most: int) -> None:
    rules = Rules(unit="head", equal_counts=False, divisible=True, max_copies=most)
    honest = handmade(rules, types=("h200",) * 4)
    costs = honest["costs"]
    repeated = costs["part_s"] or [[[0.0]] * 8] * 3
    proved = [
        costs["launch_s"][0]
        + max(
            repeated[i][h][0]
            + (costs["head_s"][i][h][0] - repeated[i][h][0]) / most
            + costs["group_s"][i][h // 2][0]
            for h in range(8)
        )
        for i in range(3)
    ]
    name = "largest item" if most == 1 else f"largest item on {most} devices"

    def bounded(factor: float) -> Tamper:
        def change(plan: Json) -> None:
            for layer, seconds in zip(plan["layers"], proved, strict=True):
                layer["bound"], layer["lower_bound_s"] = name, seconds * factor
            plan["lower_bound_s"] = math.fsum(proved) * factor
            plan["gap"] = 1 - plan["lower_bound_s"] / plan["makespan_s"]

        return change

    assert told(honest, bounded(1.0)) == []
    assert any("which gives" in fault for fault in told(honest, bounded(1.001)))
