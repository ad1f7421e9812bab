"""Kernels run in Triton's interpreter here: it is chosen when a kernel is decorated."""

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch

# A device computes on one thread, and tiny tensors are slower on two.
torch.set_num_threads(1)
