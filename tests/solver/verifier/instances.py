"""Small instances of a layer, and their optimum found by trying every placement."""

from itertools import product

from hypothesis import strategies as st

from solver.verifier.bounds import Instance


@st.composite
def instances(draw: st.DrawFn, *, most_items: int = 6, most_types: int = 2) -> Instance:
    """Whole items on one or two devices of each type, in groups of any size, often equal."""
    types = draw(st.integers(1, most_types))
    number = draw(st.integers(1, most_items))
    each = st.tuples(*[st.integers(0, 12)] * types)
    costs = draw(st.lists(each, min_size=1, max_size=3))
    breaks = draw(st.lists(st.integers(0, 1), min_size=number, max_size=number))
    group_of = tuple(sum(breaks[1 : item + 1]) for item in range(number))
    charges = draw(st.lists(each, min_size=1, max_size=2))
    return Instance(
        whole=tuple(draw(st.sampled_from(costs)) for _ in range(number)),
        part=((0,) * types,) * number,
        charge=tuple(draw(st.sampled_from(charges)) for _ in range(group_of[-1] + 1)),
        group_of=group_of,
        launch=draw(st.tuples(*[st.integers(0, 3)] * types)),
        devices=draw(st.tuples(*[st.integers(1, 2)] * types)),
        copies=1,
        equal_counts=draw(st.booleans()),
    )


def optimum(instance: Instance) -> int:
    """The least makespan of whole items."""
    kinds = [t for t, number in enumerate(instance.devices) for _ in range(number)]
    best = None
    for placed in product(range(len(kinds)), repeat=len(instance.whole)):
        counts = sorted(placed.count(device) for device in range(len(kinds)))
        if instance.equal_counts and counts[-1] - counts[0] > 1:
            continue
        loads = [_load(instance, placed, device, kind) for device, kind in enumerate(kinds)]
        best = max(loads) if best is None else min(best, max(loads))
    assert best is not None
    return best


def _load(instance: Instance, placed: tuple[int, ...], device: int, kind: int) -> int:
    here = [item for item, at in enumerate(placed) if at == device]
    if not here:
        return 0
    groups = {instance.group_of[item] for item in here}
    work = sum(instance.whole[item][kind] for item in here)
    return work + sum(instance.charge[group][kind] for group in groups) + instance.launch[kind]


def divided_optimum(instance: Instance) -> float:
    """The least makespan on two identical devices when items may be divided between them.

    Given which items are where, what is divided evens the loads out as far as it can.
    """
    (launch,) = instance.launch
    best = float("inf")
    ways = [(0,), (1,)] + ([(0, 1)] if instance.copies > 1 else [])
    for support in product(ways, repeat=len(instance.whole)):
        fixed, flexible = [0, 0], 0
        for item, devices in enumerate(support):
            (whole,), (part,) = instance.whole[item], instance.part[item]
            for device in devices:
                fixed[device] += whole if len(devices) == 1 else part
            flexible += whole - part if len(devices) == 2 else 0
        for device in (0, 1):
            groups = {instance.group_of[i] for i, at in enumerate(support) if device in at}
            fixed[device] += sum(instance.charge[group][0] for group in groups)
            fixed[device] += launch if groups else 0
        best = min(best, max((sum(fixed) + flexible) / 2, *fixed))
    return best
