"""Compile decode for sm_90 as it is and as it tells where it runs; prints what came out as JSON."""

import json
import sys
from pathlib import Path

from triton.backends import nvidia

from benchmarks.gpu.spread import placed_kernel
from executor.kernels.triton.decode import decode_kernel
from tests.executor.kernels.compile_decode import Shape
from tests.executor.kernels.cubin import compiled_as_launched, resources


def everything(tool: Path) -> dict[str, dict[str, int]]:
    shape = Shape()
    types, options = shape.types, shape.options
    told = {"places_ptr": "*i32", **types}
    usual = compiled_as_launched(decode_kernel, types, options)
    placed = compiled_as_launched(placed_kernel, told, options | {"READ": True})
    return {
        name: {"reads": compiled.asm["ptx"].count("%smid"), **resources(compiled, tool)}
        for name, compiled in (("decode", usual), ("placed", placed))
    }


if __name__ == "__main__":
    cuobjdump = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    missing = {"missing": f"Triton's wheel has no {cuobjdump}"}
    sys.stdout.write(json.dumps(everything(cuobjdump) if cuobjdump.exists() else missing))
