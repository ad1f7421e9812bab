"""What this very chip gives: bytes a second of a copy, flops a second of a matrix product; and
whether it spreads programs over idle multiprocessors."""

from functools import partial

import torch

from benchmarks.gpu.rows import Row
from benchmarks.gpu.section import Section
from benchmarks.gpu.spread import spread
from benchmarks.gpu.timing import timed
from benchmarks.gpu.work import product_work

PRODUCT_SIDE = 8192
COPIED = 2**31
"""Elements of bf16; a copy of many times the L2."""


def run(section: Section) -> None:
    section.attempt("matrix product", partial(_product, section))
    section.attempt("copy", partial(_copy, section))
    section.attempt("programs on idle multiprocessors", partial(spread, section))


def _copy(section: Section) -> Row:
    count = 2**10 if section.tiny else COPIED
    source, target = (
        torch.randn(count, device=section.device, dtype=torch.bfloat16) for _ in range(2)
    )
    took = timed([lambda: target.copy_(source)])
    return {**took.figures(), "bytes_per_s": 2 * 2 * count / took.median_s}


def _product(section: Section) -> Row:
    side = 32 if section.tiny else PRODUCT_SIDE
    a, b = (torch.randn(side, side, device=section.device, dtype=torch.bfloat16) for _ in range(2))
    took = timed([lambda: a @ b])
    flops = 2 * side**3
    return {
        **took.figures(),
        "tflops": flops / took.median_s / 1e12,
        "work": {"s": product_work(flops)},
    }
