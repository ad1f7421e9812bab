"""What this very chip gives: bytes a second of a copy, flops a second of a matrix product."""

from functools import partial

import torch

from benchmarks.gpu.section import Row, Section
from benchmarks.gpu.timing import timed


def run(section: Section) -> None:
    section.attempt("copy", partial(_copy, section))
    section.attempt("matrix product", partial(_product, section))


def _copy(section: Section) -> Row:
    count = 2**10 if section.tiny else 2**31
    source, target = (
        torch.randn(count, device=section.device, dtype=torch.bfloat16) for _ in range(2)
    )
    took = timed([lambda: target.copy_(source)])
    return {**took.figures(), "bytes_per_s": 2 * 2 * count / took.median_s}


def _product(section: Section) -> Row:
    side = 32 if section.tiny else 8192
    a, b = (torch.randn(side, side, device=section.device, dtype=torch.bfloat16) for _ in range(2))
    took = timed([lambda: a @ b])
    return {**took.figures(), "tflops": 2 * side**3 / took.median_s / 1e12}
