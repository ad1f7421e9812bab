"""What a results file says of the machine and the code it came from."""

# Parts of torch have no types for mypy to check.
# mypy: disable-error-code="no-untyped-call"

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import torch
import triton


def machine(commit: str | None = None) -> dict[str, Any]:
    """GPU, driver, versions, date and commit; None where it cannot be told.

    `commit` is what it was told to be, where the code lies without its history.
    """
    status = _said("git", "status", "--porcelain")
    found: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit or _said("git", "rev-parse", "HEAD"),
        "changed_files": None if status is None else len(status.splitlines()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "cores": os.cpu_count(),
        "gpu": None,
    }
    if torch.cuda.is_available():
        # Typed with a part of its attributes only.
        properties: Any = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "driver": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
            "clocks": _said("nvidia-smi", "--query-gpu=clocks.sm,clocks.mem", "--format=csv"),
            "capability": [properties.major, properties.minor],
            "multiprocessors": properties.multi_processor_count,
            "shared_memory_per_program": properties.shared_memory_per_block_optin,
            "l2_bytes": properties.L2_cache_size,
            "memory_bytes": properties.total_memory,
        }
    return found


def _said(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
