"""The prior: what a chip's data sheet allows, and the gate nothing measured may pass."""

import numpy as np
from numpy.typing import NDArray

from profiles.cost.rates import Rates
from profiles.cost.work import INDEX, Phase
from profiles.device import DeviceProfile


def roofline(device: DeviceProfile, phase: Phase) -> Rates:
    """Rates of a device that reaches its peak on everything: an optimistic, unmeasured prior.

    Compute and memory times are added, not overlapped, because a load must stay linear; a query
    block or a scored block costs the FLOPs of a 128-wide dot product or two, a list the reading of
    one 64-token block of 16-bit keys and values. Gathered keys cost nothing beyond dense ones.
    """
    per_flop, per_byte = 1 / device.peak_flops, 1 / device.memory_bandwidth
    per_tile_flop = per_flop / device.attention_share
    seconds_per = {
        "launches": device.launch_s,
        "query_blocks": 64 * 128 * 4 * per_tile_flop,
        "tile_flops": per_tile_flop,
        "scored_blocks": 2 * 128 * per_flop,
        "kv_bytes": per_byte,
        "projection_flops": per_flop,
        "link_bytes": 1 / device.link_bandwidth,
        "kv_lists": 2 * 64 * 128 * 2 * per_byte,
        "sparse_tile_flops": 0.0,
    }
    return Rates(
        device=device.name,
        phase=phase,
        seconds_per=seconds_per,
        source=f"roofline of the {device.name} data sheet, unmeasured",
    )


def fastest_possible_s(device: DeviceProfile, work: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds that no run of `work [..., FEATURES]` can undercut on this chip."""
    attention = work[..., INDEX["tile_flops"]] / device.attention_share
    flops = attention + work[..., INDEX["projection_flops"]]
    memory = work[..., INDEX["kv_bytes"]] / device.memory_bandwidth
    return np.asarray(np.maximum(flops / device.peak_flops, memory), dtype=np.float64)
