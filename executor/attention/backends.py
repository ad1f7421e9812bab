"""The back ends by name."""

from typing import Literal, get_args

import torch

from profiles.errors import UnknownNameError

Backend = Literal["torch", "triton"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
DENSE_FROM: dict[Backend, float] = {"torch": 0.8, "triton": 1.0}
"""From this share of a prompt's tiles on it is no slower to compute them all than to choose and to
gather: measured on a CPU (benchmarks/cpu_attention.py --selected); 1 where nobody measured."""


def resolve_backend(name: str, device: torch.device) -> Backend:
    """The back end called `name`; "auto" is triton for tensors on a GPU, else torch.

    Raises UnknownNameError.
    """
    if name == "auto":
        return "triton" if device.type == "cuda" else "torch"
    for backend in BACKENDS:
        if name == backend:
            return backend
    raise UnknownNameError(f"unknown back end {name!r}: known are auto, {', '.join(BACKENDS)}")
