"""What a layer's step takes around attention: projections, MLP and all-reduces, from shapes.

As tensor parallelism has it: every matrix evenly over all devices, two ring all-reduces a layer
(Megatron-LM, arXiv 1909.08053), nothing overlapped. A product takes the longer of its FLOPs and of
reading its weights, which is what counts where few tokens decode. Embeddings, norms and the head of
the vocabulary are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from profiles.architecture import Architecture
from profiles.catalogue import device_profile
from profiles.cost.rates import Rates
from profiles.cost.work import Workload

REDUCED = 2
"""All-reduces of a layer: after the output projection and after the MLP."""


@dataclass(frozen=True)
class RestOfStep:
    """Seconds of all layers on the slowest of the devices.

    `weights_s`: reading the projections' weights, which is within `projections_s`.
    """

    projections_s: float
    weights_s: float
    mlp_s: float
    all_reduce_s: float


def rest_of_step(
    architecture: Architecture,
    workload: Workload,
    types: Sequence[str],
    rates: Mapping[str, Rates],
) -> RestOfStep | None:
    """What is around attention on devices of `types`, by index; None for an unknown MLP.

    `rates` by device type: measured ones where there are any, but never faster than the data sheet.
    """
    if architecture.mlp_size is None:
        return None
    each = [_on_one(architecture, workload, name, len(types), rates[name]) for name in set(types)]
    return RestOfStep(
        max(rest.projections_s for rest in each),
        max(rest.weights_s for rest in each),
        max(rest.mlp_s for rest in each),
        max(rest.all_reduce_s for rest in each),
    )


def _on_one(
    architecture: Architecture, workload: Workload, name: str, devices: int, rates: Rates
) -> RestOfStep:
    assert architecture.mlp_size is not None  # its caller looked
    device, layers = device_profile(name), architecture.layers
    tokens = workload.new_tokens * workload.batch_size
    flop_s = max(rates.seconds_per["projection_flops"], 1 / device.peak_flops)
    link_s = max(rates.seconds_per["link_bytes"], 1 / device.link_bandwidth)

    def reading_s(parameters: int) -> float:
        per_device = layers * parameters * architecture.item_bytes / devices
        return per_device / device.memory_bandwidth

    def product_s(parameters: int, read: int) -> float:
        return max(layers * 2 * tokens * parameters * flop_s / devices, reading_s(read))

    heads = 2 * (architecture.query_heads + architecture.kv_heads)
    qkvo = architecture.hidden_size * architecture.head_dim * heads
    expert = architecture.mlp_matrices * architecture.hidden_size * architecture.mlp_size
    # At most as many experts are read as tokens choose.
    experts_read = min(architecture.experts, tokens * architecture.experts_per_token)
    reduced = 2 * (devices - 1) / devices * tokens * architecture.hidden_size
    return RestOfStep(
        projections_s=product_s(qkvo, qkvo),
        weights_s=reading_s(qkvo),
        mlp_s=product_s(architecture.experts_per_token * expert, experts_read * expert),
        all_reduce_s=layers * REDUCED * reduced * architecture.item_bytes * link_s,
    )
