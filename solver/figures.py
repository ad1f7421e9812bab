"""What a placement amounts to: idle share, imbalance, copies, bytes, stock compatibility."""

import numpy as np

from profiles.architecture import Architecture
from profiles.cost.work import Workload, kv_group_bytes
from solver.problem import Floats, Ints


def bubble_ratio(loads: Floats) -> float:
    """Idle share of device time, for loads [layers, devices]; every layer ends in a barrier."""
    makespans = loads.max(axis=1).sum()
    return float(max(0.0, 1 - loads.sum() / (loads.shape[1] * makespans)))


def imbalance(loads: Floats, *, identical: bool) -> float | None:
    """The paper's I: plan makespan over summed mean loads; undefined for unlike devices."""
    return float(loads.max(axis=1).sum() / loads.mean(axis=1).sum()) if identical else None


def presence(devices: Ints, kv_heads: int, device_count: int) -> np.ndarray:
    """Which KV groups are on which device, [layers, kv_heads, devices], heads' devices given."""
    layers, heads = devices.shape
    present = np.zeros((layers, kv_heads, device_count), dtype=bool)
    group = np.arange(heads) // (heads // kv_heads)
    present[np.arange(layers)[:, None], group[None, :], devices] = True
    return present


def kv_copies(present: np.ndarray) -> list[int]:
    """Per layer: (KV group, device) pairs beyond one a group."""
    return [int(n) for n in present.sum(axis=(1, 2)) - present.shape[1]]


def kv_bytes(present: np.ndarray, architecture: Architecture, workload: Workload) -> list[int]:
    """Per device: K/V of the whole context, all layers."""
    held = present.sum(axis=(0, 1))
    return [int(n) * kv_group_bytes(architecture, workload) for n in held]


def stock_compatible(present: np.ndarray) -> tuple[bool, str]:
    """Whether stock tensor parallelism can run it: whole KV groups in equal counts."""
    split = np.argwhere(present.sum(axis=2) > 1)
    if len(split):
        layer, group = split[0]
        count = int(present[layer, group].sum())
        return False, f"KV group {group} of layer {layer} is split over {count} devices"
    counts = present.sum(axis=1)
    uneven = np.flatnonzero(counts.max(axis=1) != counts.min(axis=1))
    if len(uneven):
        layer = int(uneven[0])
        low, high = int(counts[layer].min()), int(counts[layer].max())
        return False, f"layer {layer} has {low} to {high} KV groups a device, not equal counts"
    return True, f"whole KV groups, {int(counts[0, 0])} a device in every layer"
