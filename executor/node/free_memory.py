"""Memory that a node's accelerators have to spare."""

from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")


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
