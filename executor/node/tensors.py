"""The tensors of a model's layer, made once for an architecture and a workload."""

import math
from pathlib import Path

import torch

from executor.errors import CannotMeasureError
from executor.node.layer_cache import Room
from executor.node.layers import Disaggregated, Step, TensorParallel
from profiles.architecture import Architecture
from profiles.cost.work import Deployment, Workload

SEED = 0
CGROUP = Path("/sys/fs/cgroup")
STEPS: dict[Deployment, type[Disaggregated] | type[TensorParallel]] = {
    "disaggregated": Disaggregated,
    "tensor_parallel": TensorParallel,
}


def make_step(architecture: Architecture, workload: Workload, accelerator: str) -> Step:
    """Seeded random tensors of the model's shape on `cpu` (fp32) or `cuda:i` (the model's dtype).

    All are filled, so that no timed run is the first to touch a page. Raises CannotMeasureError
    when they do not fit into the memory that is free now.
    """
    kind = STEPS[workload.deployment]
    dtype = _dtype(architecture, accelerator)
    shapes = kind.shapes(architecture, workload)
    needed, free = needed_bytes(architecture, workload, dtype), free_bytes(accelerator)
    if free is not None and needed > free:
        raise CannotMeasureError(
            f"{workload.batch_size} x {workload.context_tokens} tokens of "
            f"{architecture.query_heads} heads need {needed / 1e9:.2f} GB on {accelerator} "
            f"({workload.deployment}, {str(dtype).removeprefix('torch.')}), but only "
            f"{free / 1e9:.2f} GB are free: plan for a shorter context or free memory"
        )
    generator = torch.Generator(accelerator).manual_seed(SEED)
    made = {
        name: torch.randn(shape, generator=generator, device=accelerator, dtype=dtype)
        for name, shape in shapes.items()
    }
    room = Room.of(made.pop("keys"), made.pop("values"), workload)
    return kind(room=room, **made)


def needed_bytes(architecture: Architecture, workload: Workload, dtype: torch.dtype) -> int:
    """Bytes of every tensor of the step, of the attention's output, which is as large as q, and of
    the pages' bounds."""
    shapes = STEPS[workload.deployment].shapes(architecture, workload)
    elements = sum(math.prod(shape) for shape in (*shapes.values(), shapes["q"]))
    if workload.phase == "decode":
        elements += 2 * math.prod(shapes["keys"]) // workload.piece_tokens
    return elements * dtype.itemsize


def free_bytes(accelerator: str) -> int | None:
    """Memory that can be had now; None where the system does not say."""
    if accelerator != "cpu":
        return torch.cuda.mem_get_info(accelerator)[0]
    limits = [_cgroup_free_bytes(), _system_free_bytes()]
    return min((limit for limit in limits if limit is not None), default=None)


def _system_free_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return next((int(kib) * 1024 for kib in sizes), None)


def _cgroup_free_bytes() -> int | None:
    """What a container's own limit (cgroup v2) leaves."""
    try:
        limit, used = ((CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
    except OSError:
        return None
    return None if limit.strip() == "max" else max(0, int(limit) - int(used))


def _dtype(architecture: Architecture, accelerator: str) -> torch.dtype:
    dtype: torch.dtype = (
        torch.float32 if accelerator == "cpu" else getattr(torch, architecture.dtype)
    )
    return dtype
