"""A node's duty: whether it can run an assignment, and one round of running it."""

from collections.abc import Callable

from api.client.bodies import Assignment, DeviceSample
from executor.measure import Bench
from executor.shard import layer_shard
from profiles.errors import HplbError


def unfit(assignment: Assignment, devices: list[str]) -> str | None:
    """Why a node with `devices` (types, in order) cannot run an assignment; None when it can."""
    plan = assignment.plan
    wanted = [plan.devices[device] for device in assignment.devices]
    if wanted != devices[: len(wanted)]:
        return f"it wants devices of types {wanted}, this node has {devices}"
    try:
        for layer in assignment.layers:
            for device in assignment.devices:
                layer_shard(plan, device, layer)
    except HplbError as error:
        return str(error)
    return None


def measure_round(
    assignment: Assignment, bench: Bench, dropped: Callable[[], bool]
) -> list[DeviceSample] | None:
    """Every layer and device once, a sample for each that has work; None once `dropped()`.

    Raises what `Bench.next_round` and `Bench.measure` raise.
    """
    samples = []
    real = bench.next_round(assignment.plan, assignment.layers, dropped)
    for layer in assignment.layers:
        for local, device in enumerate(assignment.devices):
            if dropped():
                return None
            shard = layer_shard(assignment.plan, device, layer)
            sample = bench.measure(shard, local, dropped, real.get(layer))
            samples += [sample] if sample is not None else []
    return samples
