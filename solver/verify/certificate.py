"""What the plan says of each layer: loads, makespan, and the bound where its proof is plain."""

from solver.verify.fields import Json
from solver.verify.loads import RELATIVE, Served, blend, blended_makespans, close
from solver.verify.proofs import proved_s


def layers(plan: Json, served: list[Served]) -> list[str]:
    """Loads, makespan and bound of every layer."""
    faults = []
    figures = zip(plan["layers"], blend(served), blended_makespans(served), strict=True)
    for index, (layer, loads, makespan_s) in enumerate(figures):
        found = differing(layer["loads_s"], loads)
        if not close(layer["makespan_s"], makespan_s):
            found.append(f"makespan {layer['makespan_s']} s, recomputed {makespan_s} s")
        found += _bound(plan, index)
        faults += [f"layer {index}: {fault}" for fault in found]
    return faults


def differing(claimed: list[float], true: list[float]) -> list[str]:
    """Devices whose load is not what the costs give."""
    return [
        f"device {device}: load {said} s, recomputed {seconds} s"
        for device, (said, seconds) in enumerate(zip(claimed, true, strict=True))
        if not close(said, seconds)
    ]


def unchecked(plan: Json) -> int:
    """Layers whose bound is taken as it is: proved by search, or by a proof not recomputed."""
    return sum(proved_s(plan, index) is None for index in range(len(plan["layers"])))


def _bound(plan: Json, index: int) -> list[str]:
    layer = plan["layers"][index]
    faults = []
    if layer["lower_bound_s"] > layer["makespan_s"] * (1 + RELATIVE):
        faults.append(f"bound {layer['lower_bound_s']} s is above the makespan")
    proved = proved_s(plan, index)
    if proved is not None and layer["lower_bound_s"] > proved * (1 + RELATIVE):
        faults.append(
            f"bound {layer['lower_bound_s']} s by {layer['bound']}, which gives {proved} s"
        )
    return faults
