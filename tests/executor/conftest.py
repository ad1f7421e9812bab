"""Attention here computes on one thread, as a device does: tiny tensors are slower on two."""

import torch

torch.set_num_threads(1)
