"""Two implementations of the same names: Triton's kernels for a GPU, torch's for anything else."""

from functools import cache
from importlib import import_module
from types import ModuleType


@cache
def implementation(use_triton: bool) -> ModuleType:
    """`executor.kernels.triton`, or `executor.kernels.torch`, which needs no Triton."""
    return import_module(f"executor.kernels.{'triton' if use_triton else 'torch'}")
