"""Compile prefill for sm_90 (and sm_80) in every production shape; that needs no GPU.

`compile_prefill.py [NAME...] [--table] [--recorded]` prints what came out of those named, or all;
`--record` writes it down: see `cubin`.
"""

from dataclasses import dataclass
from functools import partial

from executor.kernels.triton.arguments import Lists, Partial, Pool, Rows
from executor.kernels.triton.prefill import fits, launch_options, long_enough, prefill_kernel
from tests.executor.kernels.cubin import (
    CHIPS,
    ITEM_BYTES,
    ONE,
    Compiled,
    Configurations,
    Facts,
    Launch,
    main,
)


@dataclass(frozen=True)
class Shape:
    """One configuration; `page` 0 is a contiguous cache."""

    dtype: str = "bf16"
    head_dim: int = 128
    block: int = 64
    piece: int = 64
    page: int = 64
    tma: bool = True
    pack: int = 1
    queue: bool = False
    split: bool = False
    capability: int = 90

    @property
    def name(self) -> str:
        said = [self.dtype, f"d{self.head_dim}", f"{self.block}x{self.piece}"]
        said += [f"pages of {self.page}" if self.page else "contiguous"]
        said += ["tma" if self.tma else "pointers"]
        said += [word for word in ("queue", "split") if getattr(self, word)]
        said += ["two heads"] if self.pack > 1 else []
        return " ".join([*said, f"sm_{self.capability}"])


def shapes():
    """What production runs, then fp32, which is for correctness, then an A100."""
    for head_dim in (64, 128, 256):
        for block, piece in ((64, 64), (128, 128), (128, 64), (64, 16), (128, 16)):
            for page in (0, piece):
                tma = long_enough(block, piece)
                yield Shape("bf16", head_dim, block, piece, page, tma)
        # Types of two bytes differ by an instruction's name: one tile shows that it is there.
        for page in (0, 64):
            yield Shape("fp16", head_dim, page=page)
    for head_dim in (64, 128, 256):
        for page in (0, 64):
            for tma in (True, False):
                yield Shape("bf16", head_dim, page=page, tma=tma, queue=True)
                yield Shape("bf16", head_dim, page=page, tma=tma, split=True)
            yield Shape("bf16", head_dim, page=page, pack=2)
            yield Shape("bf16", head_dim, page=page, tma=False)
        for page in (0, 16):
            yield Shape("bf16", head_dim, piece=16, page=page, tma=False, pack=2)
            yield Shape("bf16", head_dim, piece=16, page=page, tma=False, split=True)
        # vLLM's pages hold 16 tokens, others several pieces.
        yield Shape("bf16", head_dim, piece=16, page=128, tma=False)
    for head_dim in (64, 128, 256):
        for block in (64, 128):
            yield Shape("fp32", head_dim, block, block, block)
        yield Shape("fp32", head_dim, pack=2)
    for head_dim, block in ((64, 128), (128, 128), (256, 32), (256, 64)):
        yield Shape("fp32", head_dim, block, 16, 16, tma=False, capability=80)
    for head_dim in (64, 128, 256):
        for block, piece in ((64, 64), (128, 128), (64, 16)):
            yield Shape("bf16", head_dim, block, piece, piece, tma=False, capability=80)


def launch(shape: Shape) -> Launch:
    chip, item = CHIPS[shape.capability], ITEM_BYTES[shape.dtype]
    options = launch_options(
        shape.block, shape.piece, shape.head_dim, item, shape.tma, shape.page > 0, shape.pack, chip
    )
    options |= {
        "PAGE": shape.page,
        "TMA": shape.tma,
        "ALIKE": True,
        "QUEUE": shape.queue,
        "SPLIT": shape.split,
    }
    keys, source = options["KEYS"], f"*{shape.dtype}"
    rows = Rows(source, "i32", "i32", ONE)
    if shape.tma:
        ones = "1, 1" if shape.page else "1"
        source = f"tensordesc<{shape.dtype}[{ones}, {keys}, {shape.head_dim}]>"
    pool = Pool(source, "i32", "i32", "i32", ONE)
    types = {
        "q": rows,
        "keys": pool,
        "values": pool,
        "out": rows,
        "lse_ptr": "*fp32",
        "lse_head": "i32",
        "lists": Lists(*["*i32"] * 6),
        "table_ptr": "*i32",
        "table_sequence": "i32",
        "table_page": "i32",
        "partial": Partial("*fp32", "*fp32"),
        "tasks_ptr": "*i32",
        "queue_ptr": "*i32",
        "tasks": "i32",
        "once": "i32",
        "scale_log2": "fp32",
    }

    def facts(compiled: Compiled) -> Facts:
        return {
            "keys": keys,
            "warps": options["num_warps"],
            "stages": options["num_stages"],
            "expected": fits(shape.pack * shape.block, shape.head_dim, item, chip, shape.tma),
            **compiled.resources(chip),
            "buffers": compiled.buffers(keys, shape.head_dim),
            **{
                kind: compiled.instructions[kind]
                for kind in ("wgmma", "async_copies", "tma_copies")
            },
        }

    return Launch(prefill_kernel, types, options, facts, shape.capability)


def configurations() -> Configurations:
    return {shape.name: partial(launch, shape) for shape in shapes()}


if __name__ == "__main__":
    main(configurations, __file__)
