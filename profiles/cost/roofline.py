"""The prior: what a chip's data sheet allows, and the gate nothing measured may pass."""

import numpy as np
from numpy.typing import NDArray

from profiles.cost.fitted import FITTED
from profiles.cost.rates import Rates
from profiles.cost.work import FEATURES, INDEX, Phase
from profiles.device import DeviceProfile


def roofline(device: DeviceProfile, phase: Phase) -> Rates:
    """Rates of a device that reaches its peak on everything: an optimistic, unmeasured prior.

    Compute and memory times are added, not overlapped, because a load must stay linear; a query
    block or a scored block costs the FLOPs of a 128-wide dot product or two, a list the reading of
    one 64-token block of 16-bit keys and values. Gathered keys cost what dense ones do. What the
    device's back end is not fitted on costs nothing.
    """
    per_flop, per_byte = 1 / device.peak_flops, 1 / device.memory_bandwidth
    per_tile_flop = per_flop / device.attention_share
    seconds_per = {
        "launches": device.launch_s,
        "query_blocks": 64 * 128 * 4 * per_tile_flop,
        "dense_tile_flops": per_tile_flop,
        "gathered_tile_flops": per_tile_flop,
        "sampled_flops": per_flop,
        "scored_blocks": 2 * 128 * per_flop,
        "kv_bytes": per_byte,
        "projection_flops": per_flop,
        "link_bytes": 1 / device.link_bandwidth,
        "kv_lists": 2 * 64 * 128 * 2 * per_byte,
    }
    fitted = FITTED[device.backend][phase]
    return Rates(
        device=device.name,
        phase=phase,
        seconds_per={name: seconds_per[name] if name in fitted else 0.0 for name in FEATURES},
        source=f"roofline of the {device.name} data sheet, unmeasured",
    )


def fastest_possible_s(device: DeviceProfile, work: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds that no run of `work [..., FEATURES]` can undercut on this chip."""
    tiles = work[..., INDEX["dense_tile_flops"]] + work[..., INDEX["gathered_tile_flops"]]
    whole_chip = work[..., INDEX["sampled_flops"]] + work[..., INDEX["projection_flops"]]
    flops = tiles / device.attention_share + whole_chip
    memory = work[..., INDEX["kv_bytes"]] / device.memory_bandwidth
    return np.asarray(np.maximum(flops / device.peak_flops, memory), dtype=np.float64)
