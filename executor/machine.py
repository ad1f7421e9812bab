"""What a node says of the machine it is: its GPUs' type, and what runs on them."""

import platform
from importlib.metadata import PackageNotFoundError, version

from executor.errors import CannotMeasureError

GPU_TYPES = ("h200", "h100", "a100")


def gpu_type(name: str) -> str:
    """The catalogue's type of a GPU by its driver's name for it."""
    for known in GPU_TYPES:
        if known.upper() in name.upper():
            return known
    raise CannotMeasureError(
        f"{name!r} is in no catalogue: name the nearest type with --device-type (hplb_device_type)"
    )


def versions(*others: str) -> dict[str, str]:
    """Of Python, of HPLB with torch and Triton, and of `others`, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in ("hplb", "torch", "triton", *others):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
