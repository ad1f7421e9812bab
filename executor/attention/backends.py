"""The back ends by name."""

from typing import Literal, get_args

import torch

from profiles.errors import UnknownNameError

Backend = Literal["torch", "triton"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


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
