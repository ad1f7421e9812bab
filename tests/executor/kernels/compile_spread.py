"""Compile decode for sm_90 as it is and as it tells where it runs; prints what came out as JSON."""

import json
import sys

from benchmarks.gpu.spread import placed_kernel
from executor.kernels.triton.decode import decode_kernel
from tests.executor.kernels.compile_decode import Shape
from tests.executor.kernels.cubin import CUOBJDUMP, Compiled, Facts, Launch


def facts(compiled: Compiled) -> Facts:
    return {"reads": compiled.instructions["reads_of_sm"], **compiled.resources()}


def everything() -> dict[str, Facts]:
    shape = Shape()
    types, options = shape.types, shape.options
    told = {"places_ptr": "*i32", **types}
    launches = {
        "decode": Launch(decode_kernel, types, options, facts),
        "placed": Launch(placed_kernel, told, options | {"READ": True}, facts),
    }
    return {name: launch.facts(launch.compile()) for name, launch in launches.items()}


if __name__ == "__main__":
    missing = {"missing": f"Triton's wheel has no {CUOBJDUMP}"}
    sys.stdout.write(json.dumps(everything() if CUOBJDUMP.exists() else missing))
