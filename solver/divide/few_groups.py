"""Filling devices that hold few KV groups each: whole groups first, and last a part of the largest.

Packing splittable items with a limit on how many a bin holds (Chung, Graham, Mao & Varghese, Theory
of Computing Systems 39, 2006; Epstein, Levin & van Stee, Algorithmica 62, 2012), NP-hard for two
already. Device after device takes groups that fit whole, the smallest or the largest of those, but
for one slot; there goes what fills the device of the largest group that waits. What is left must
find slots on the devices to come.
"""

from dataclasses import dataclass

from solver.divide.seconds import FULL, Piece, Seconds


@dataclass
class _Waiting:
    """What is left of a group: its items with the work left, the next one last, and all seconds."""

    items: list[tuple[int, float]]
    seconds: float


def fill_slots(seconds: Seconds, level: float, *, smallest: bool) -> tuple[list[Piece], float]:
    """Fill the devices to `level`: the pieces, and the seconds of what found no room."""
    full = FULL * level
    waiting: dict[int, _Waiting] = {}
    for item in sorted(range(len(seconds.work)), key=lambda i: seconds.work[i]):
        group = seconds.group[item]
        own = waiting.setdefault(group, _Waiting([], seconds.charge[group]))
        own.items.append((item, seconds.work[item]))
        own.seconds += seconds.work[item] + seconds.part[item]
    placed: list[Piece] = []
    for device, room in enumerate(seconds.rooms(level)):
        slots_after = (seconds.devices - device - 1) * seconds.slots
        for slot in range(seconds.slots):
            if not waiting or room <= full:
                break
            chosen = _next(waiting, room + full, slots_after, slot == seconds.slots - 1, smallest)
            if chosen is None:
                break
            room -= _take(seconds, waiting, chosen, device, room, placed)
    return placed, sum(own.seconds for own in waiting.values())


def _next(
    waiting: dict[int, _Waiting], room: float, slots_after: int, last: bool, smallest: bool
) -> int | None:
    """The group that a device takes next; none where it must not be cut and none fits."""

    def size(group: int) -> float:
        return waiting[group].seconds

    largest = max(waiting, key=size)
    fitting = [group for group in waiting if size(group) <= room]
    # A group that is cut goes on waiting for a slot.
    may_cut = len(waiting) <= slots_after
    if last and (may_cut or size(largest) <= room):
        return largest
    if fitting:
        return min(fitting, key=size) if smallest and not last else max(fitting, key=size)
    return largest if may_cut else None


def _take(
    seconds: Seconds,
    waiting: dict[int, _Waiting],
    group: int,
    device: int,
    room: float,
    placed: list[Piece],
) -> float:
    """Give a device as much of a group as it has room for; the seconds that this takes."""
    own, full = waiting[group], FULL * room
    used = charge = seconds.charge[group]
    while own.items:
        item, left = own.items[-1]
        part, work = seconds.part[item], seconds.work[item]
        takes = min(left, room - used - part)
        if takes < left - full and takes <= full:
            break
        takes = left if takes >= left - full else takes
        placed.append((item, device, takes / work if work > 0 else 1.0))
        used += takes + part
        own.seconds -= takes
        if takes < left:
            own.items[-1] = (item, left - takes)
            break
        own.seconds -= part
        own.items.pop()
    if not own.items:
        del waiting[group]
    return used if used > charge else 0.0
