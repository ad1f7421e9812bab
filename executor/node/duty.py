"""A node's duty: whether it can run an assignment, and the rounds of running it."""

from collections.abc import Callable

from api.client.bodies import Assignment, DeviceSample
from executor.node.bench import Bench
from executor.node.shard import layer_shard
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


class Duty:
    """An assignment's shards, worked out once and measured round after round.

    Raises ShardError for a plan that cannot be split.
    """

    def __init__(self, assignment: Assignment, bench: Bench) -> None:
        self.assignment, self._bench = assignment, bench
        self._shards = [
            (layer_shard(assignment.plan, device, layer), local)
            for layer in assignment.layers
            for local, device in enumerate(assignment.devices)
        ]
        bench.keep(self._shards)

    def measure_round(self, dropped: Callable[[], bool]) -> list[DeviceSample] | None:
        """Every layer and device once, a sample for each that has work; None once `dropped()`.

        Raises what `Bench.next_round` and `Bench.measure` raise.
        """
        samples = []
        real = self._bench.next_round(self.assignment.plan, self.assignment.layers, dropped)
        for shard, local in self._shards:
            if dropped():
                return None
            sample = self._bench.measure(shard, local, dropped, real.get(shard.layer))
            samples += [sample] if sample is not None else []
        return samples
