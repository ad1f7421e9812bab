"""What a node says of the machine it is: its GPUs' type, and what runs on them."""

from executor.errors import CannotMeasureError

PACKAGES = ("hplb", "torch", "triton")
"""What runs on it."""
GPU_TYPES = ("h200", "h100", "a100")


def gpu_type(name: str) -> str:
    """The catalogue's type of a GPU by its driver's name for it."""
    for known in GPU_TYPES:
        if known.upper() in name.upper():
            return known
    raise CannotMeasureError(
        f"{name!r} is in no catalogue: name the nearest type with --device-type (hplb_device_type)"
    )
