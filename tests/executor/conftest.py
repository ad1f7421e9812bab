"""Kernels run in Triton's interpreter here: it is chosen when a kernel is decorated."""

import os

os.environ["TRITON_INTERPRET"] = "1"
