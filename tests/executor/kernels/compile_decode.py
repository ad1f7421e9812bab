"""Compile decode and its merge for sm_90 (and sm_80); that needs no GPU.

`compile_decode.py [NAME...] [--table] [--recorded]` prints what came out of those named, or all;
`--record` writes it down: see `cubin`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from executor.kernels.triton.arguments import Entries, Partial, Pool, Rows
from executor.kernels.triton.decode import decode_kernel, fits, launch_options
from executor.kernels.triton.merge import SLOTS_PER_STEP, merge_kernel
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

HEAD_DIMS = (64, 128, 256)


@dataclass(frozen=True)
class Shape:
    """One configuration: tokens of a piece and of a page, entries, and the widest one's heads."""

    dtype: str = "bf16"
    head_dim: int = 128
    piece: int = 64
    page: int = 64
    entries: int = 128
    widest: int = 4
    capability: int = 90

    @property
    def name(self) -> str:
        sizes = map(str, (self.head_dim, self.piece, self.page, self.entries))
        said = ["decode", self.dtype, *sizes]
        if self.dtype == "fp32":
            said += [f"{self.widest} heads", f"sm_{self.capability}"]
        return " ".join(said)

    @property
    def options(self) -> dict[str, Any]:
        """What the launcher decides."""
        item, chip = ITEM_BYTES[self.dtype], CHIPS[self.capability]
        sizes = (self.piece, self.head_dim, item, self.entries, self.widest, chip)
        return launch_options(*sizes) | {"PAGE": self.page, "ALIKE": True}

    @property
    def types(self) -> dict[str, Any]:
        """The kernel's parameters."""
        pointer = f"*{self.dtype}"
        pool = Pool(pointer, "i32", "i32", "i32", ONE)
        return {
            "q": Rows(pointer, "i32", "i32", ONE),
            "keys": pool,
            "values": pool,
            "table_ptr": "*i32",
            "table_sequence": "i32",
            "table_page": "i32",
            "partial": Partial("*fp32", "*fp32"),
            "lists": ENTRIES,
            "parts_ptr": "*i32",
            "context_ptr": "*i32",
            "entries": "i32",
            "widest": "i32",
            "scale_log2": "fp32",
        }


ENTRIES = Entries("*i32", "*i32", "*i32", "*i32", "*fp64", "*i32", "*i32", "*i32")


def shapes():
    """What production runs, batches of 1 and 256 with 8 KV groups, then fp32 as wide as it may be.

    fp16 is bf16 to a compiler, but for what it writes: see `merge_launch`.
    """
    for head_dim in HEAD_DIMS:
        for piece, page in ((64, 64), (128, 128), (16, 16), (16, 128)):
            for entries in (8, 2048):
                yield Shape("bf16", head_dim, piece, page, entries)
    for head_dim, widest in ((64, 128), (128, 128), (256, 32), (256, 64)):
        for capability in CHIPS:
            yield Shape("fp32", head_dim, widest=widest, capability=capability)


def decode_launch(shape: Shape) -> Launch:
    options, chip = shape.options, CHIPS[shape.capability]

    def facts(compiled: Compiled) -> Facts:
        return {
            "async_copies": compiled.instructions["async_copies"],
            "buffers": compiled.buffers(options["TILE"], shape.head_dim),
            "expected": fits(shape.head_dim, ITEM_BYTES[shape.dtype], shape.widest, chip),
            **compiled.resources(chip),
        }

    return Launch(decode_kernel, shape.types, options, facts, shape.capability)


def merge_launch(dtype: str, head_dim: int) -> Launch:
    options = {"DIM": head_dim, "SLOTS": SLOTS_PER_STEP, "num_warps": 4, "num_stages": 3}
    types = {name: f"*{dtype}" if name == "out_ptr" else "*i32" for name in merge_kernel.arg_names}
    types |= dict.fromkeys(("partial_out_ptr", "partial_lse_ptr", "lse_ptr"), "*fp32")
    types |= {n: "i32" for n in types if not n.endswith("_ptr") and not n.isupper()}
    types |= dict.fromkeys(("heads_row", "out_dim", "lse_token"), ONE)
    types = {name: kind for name, kind in types.items() if name not in options}
    return Launch(merge_kernel, types, options, Compiled.resources)


def configurations() -> Configurations:
    found: Configurations = {shape.name: partial(decode_launch, shape) for shape in shapes()}
    for dtype in ("bf16", "fp16"):
        for head_dim in HEAD_DIMS:
            found[f"merge {dtype} {head_dim}"] = partial(merge_launch, dtype, head_dim)
    return found


if __name__ == "__main__":
    main(configurations, __file__)
