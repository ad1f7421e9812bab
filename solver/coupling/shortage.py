"""Proofs that no placement at all fits in memory, each naming the bytes that are missing.

Total: every head's weights and every KV group's at least once, and its K/V once as the hungriest
head keeps it, wherever that head is. Units: such a K/V cannot be divided, so a device holds at
most limit // u of those that take u or more (the volume argument of bin packing, applied to
large items only: Martello & Toth 1990). Equal counts: a device must take its count of each layer.
Slots: every device holds them all.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from profiles.errors import HplbError
from solver.coupling.footprint import Footprint
from solver.problem import PlacementProblem
from solver.shares import Ints


class MemoryShortageError(HplbError):
    """No placement fits, proved: `needed_bytes` on `devices` that may hold `available_bytes`."""

    def __init__(self, shortage: "Shortage", remedies: list[str]) -> None:
        self.needed_bytes = shortage.needed_bytes
        self.available_bytes = shortage.available_bytes
        self.devices = shortage.devices
        super().__init__(f"placement.memory: {shortage}; what would help: {', '.join(remedies)}")


class MemoryNotMetError(HplbError):
    """No placement was found that fits, but none was proved impossible."""

    def __init__(self, excess_bytes: int, device: int) -> None:
        self.excess_bytes = excess_bytes
        super().__init__(
            "placement.memory: no placement found within the limits, though it is not proved "
            f"impossible; the nearest one holds {excess_bytes} bytes too many on device {device}"
        )


@dataclass(frozen=True)
class Shortage:
    """Why nothing fits on `devices`, and the least that more devices would have to be."""

    needed_bytes: int
    available_bytes: int
    devices: list[int]
    why: str
    devices_wanted: str

    @property
    def missing_bytes(self) -> int:
        return self.needed_bytes - self.available_bytes

    def __str__(self) -> str:
        named = ", ".join(map(str, self.devices[:8])) + (", ..." if len(self.devices) > 8 else "")
        return (
            f"{self.why}: {self.needed_bytes} bytes are needed, devices {named} have room for "
            f"{self.available_bytes}: {self.missing_bytes} bytes short"
        )


def check_memory(problem: PlacementProblem, footprint: Footprint, limits: Ints) -> None:
    """Raise MemoryShortageError if it can be proved that nothing fits in `limits` [devices]."""
    short = shortage(problem, footprint, limits)
    if short is not None:
        raise MemoryShortageError(short, _remedies(problem, footprint, limits, short))


def shortage(problem: PlacementProblem, footprint: Footprint, limits: Ints) -> Shortage | None:
    """The first proof that applies, or None: then nothing is known."""
    proofs = (_total, _units, _equal_counts, _slots)
    return next((s for proof in proofs if (s := proof(problem, footprint, limits))), None)


def _total(problem: PlacementProblem, footprint: Footprint, limits: Ints) -> Shortage | None:
    tokens = int(footprint.kept_tokens.max(axis=-1).sum())
    matrices = problem.layers * (problem.heads + problem.kv_heads)
    kv, weights = tokens * footprint.token_bytes, matrices * footprint.projection_bytes
    available = sum(limits.tolist())
    missing = kv + weights - available
    if missing <= 0:
        return None
    return Shortage(
        kv + weights,
        available,
        list(range(problem.devices)),
        f"each KV group once takes {kv} bytes of K/V and {weights} of weights",
        _more_devices(problem, footprint, limits, missing),
    )


def _more_devices(
    problem: PlacementProblem, footprint: Footprint, limits: Ints, missing: int
) -> str:
    """How many more of the largest devices the bytes would take, in whole groups."""
    unit, most = _whole_units(problem, footprint)[-1], int(limits.max())
    if unit > most:
        return f"devices that may hold {unit} bytes"
    return f"at least {-(-missing // (most // unit * unit))} more devices"


def _whole_units(problem: PlacementProblem, footprint: Footprint) -> list[int]:
    """Bytes of what stays together of every KV group, the smallest first."""
    # With whole groups as items all of a group stays together; else its hungriest head with it.
    beside = 0 if problem.whole_groups else footprint.architecture.group_size - 1
    bytes_ = footprint.group_bytes - beside * footprint.projection_bytes
    return [int(n) for n in np.sort(bytes_.ravel())]


def _units(problem: PlacementProblem, footprint: Footprint, limits: Ints) -> Shortage | None:
    sizes = np.array(_whole_units(problem, footprint), dtype=np.int64)
    units = np.unique(sizes)
    counts = len(sizes) - np.searchsorted(sizes, units)
    rooms = np.array([int((limits // unit).sum()) for unit in units])
    worst = int(((counts - rooms) * units).argmax())
    count, room, unit = int(counts[worst]), int(rooms[worst]), int(units[worst])
    if count <= room:
        return None
    each = int(limits.max()) // unit
    return Shortage(
        count * unit,
        room * unit,
        list(range(problem.devices)),
        f"{count} KV groups of at least {unit} bytes each, of which {room} find room",
        f"at least {-(-(count - room) // each)} more devices"
        if each
        else f"devices that may hold {unit} bytes",
    )


def _equal_counts(problem: PlacementProblem, footprint: Footprint, limits: Ints) -> Shortage | None:
    if not problem.layer(0).equal_counts:
        return None
    counts = problem.layer(0).counts.tolist()
    needed = [_least_of(count, problem, footprint) for count in counts]
    device = int(np.argmax([n - limit for n, limit in zip(needed, limits.tolist(), strict=True)]))
    if needed[device] <= int(limits[device]):
        return None
    noun = "KV groups" if problem.whole_groups else "heads"
    return Shortage(
        needed[device],
        int(limits[device]),
        [device],
        f"equal counts give device {device} {counts[device]} {noun} of every layer",
        "more devices, unequal counts",
    )


def _slots(problem: PlacementProblem, footprint: Footprint, limits: Ints) -> Shortage | None:
    if footprint.slots is None:
        return None
    device, needed = int(limits.argmin()), int(footprint.slots * footprint.slot_bytes.sum())
    if needed <= int(limits[device]):
        return None
    least = -(-problem.kv_heads // problem.devices)
    return Shortage(
        needed,
        int(limits[device]),
        [device],
        f"{footprint.slots} slots of every layer",
        f"fewer slots ({least} hold every KV group)" if footprint.slots > least else "more devices",
    )


def _least_of(count: int, problem: PlacementProblem, footprint: Footprint) -> int:
    """The least bytes that `count` items of every layer take on one device."""
    if problem.whole_groups:
        return int(np.sort(footprint.group_bytes, axis=1)[:, :count].sum())
    groups = -(-count // footprint.architecture.group_size)
    least = np.sort(footprint.kept_tokens.min(axis=-1), axis=1)[:, :groups]
    weights = problem.layers * (count + groups) * footprint.projection_bytes
    return int(least.sum()) * footprint.token_bytes + weights


def _remedies(
    problem: PlacementProblem, footprint: Footprint, limits: Ints, short: Shortage
) -> list[str]:
    """What lifts every proof, each on its own; whether it is enough is not known."""

    def lifts(changed: Footprint) -> bool:
        return shortage(problem, changed, limits) is None

    found = [short.devices_wanted]
    evicts = footprint.retention == "full" and footprint.slots is None
    if evicts and lifts(replace(footprint, retention="budget")):
        found.append('kv_retention "budget"')
    batch = _largest(lambda n: lifts(replace(footprint, batch_size=n)), footprint.batch_size)
    context = _largest(
        lambda n: lifts(replace(footprint, context_tokens=n)), footprint.context_tokens
    )
    found += [f"batch_size of at most {batch}"] if batch else []
    found += [f"context_tokens of at most {context}"] if context else []
    return found


def _largest(passes: Callable[[int], bool], above: int) -> int:
    """The largest number below `above` that passes, by bisection; 0 if none does."""
    low = 0
    while above - low > 1:
        middle = (low + above) // 2
        low, above = (middle, above) if passes(middle) else (low, middle)
    return low
