"""A kernel compiled as its launcher would, and what it takes of a multiprocessor; no GPU needed."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from executor.kernels.chip import A100, H100, RESERVED_BYTES, Chip

Facts = dict[str, Any]
Configurations = dict[str, Callable[[Path], Facts]]
"""What compiles a configuration, by its name, given where cuobjdump is."""
CHIPS = {90: H100, 80: A100}
"""By compute capability."""
ITEM_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
ONE = "constexpr"
"""The type of a stride of 1, which the launcher takes for a constant."""
SIXTEENS = [["tt.divisibility", 16]]
WARPS = 64
"""That a multiprocessor holds at once, on sm_80 and sm_90 (CUDA C++ programming guide)."""
QUARTER_REGISTERS = 16384
"""Of each of a multiprocessor's four parts; a warp gets them 256 at a time."""


def compiled_as_launched(
    kernel: Any, types: dict[str, Any], options: dict[str, Any], *, capability: int = 90
) -> Any:
    """`kernel` for aligned tensors: `types` by parameter, a NamedTuple of types for a group.

    Capitals among `options` are its constexprs, the others are Triton's. Everything but what the
    kernel does not specialise on is divisible by 16, as pointers and strides of rows are.
    """
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    signature: dict[str, Any] = {}
    loose = {p.name for p in kernel.params if p.do_not_specialize}
    loose |= {p.name for p in kernel.params if p.do_not_specialize_on_alignment}
    for number, name in enumerate(kernel.arg_names):
        kind = signature[name] = types.get(name, ONE)
        if name in options:
            constants[number,] = options[name]
        members = kind if isinstance(kind, tuple) else (kind,)
        for place, member in enumerate(members):
            at = (number, place) if isinstance(kind, tuple) else (number,)
            if member == ONE:
                constants.setdefault(at, 1)
            elif name not in loose and (member.startswith("*") or member == "i32"):
                attributes[at] = SIXTEENS
    return triton.compile(
        ASTSource(kernel, signature, constants, attributes),
        target=GPUTarget("cuda", capability, 32),
        options={name: value for name, value in options.items() if not name.isupper()},
    )


def resources(compiled: Any, cuobjdump: Path, chip: Chip = H100) -> Facts:
    """Registers a thread, bytes of stack and local memory, shared bytes of a program, whether that
    fits `chip`, and programs that a multiprocessor holds at once."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        usage = subprocess.check_output([cuobjdump, "-res-usage", cubin.name], text=True)
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    shared = compiled.metadata.shared
    by_registers = 4 * (QUARTER_REGISTERS // (-(-found["REG"] // 8) * 256))
    by_warps = min(WARPS, by_registers) // compiled.metadata.num_warps
    return {
        "registers": found["REG"],
        "stack_bytes": found["STACK"],
        "local_bytes": found["LOCAL"],
        "shared_bytes": shared,
        "fits": shared <= chip.program_bytes,
        "programs_per_sm": min(by_warps, chip.shared_bytes // (shared + RESERVED_BYTES)),
    }


def main(configurations: Callable[[], Configurations]) -> None:
    """Compile those that the command line names, or all, and print what came out as JSON, with
    `--table` as Markdown."""
    every = configurations()
    names = [word for word in sys.argv[1:] if word != "--table"] or list(every)
    unknown = [name for name in names if name not in every]
    if unknown:
        sys.exit(f"no configuration {unknown[0]!r}")
    tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    if not tool.exists():
        sys.stdout.write(json.dumps({"missing": f"Triton's wheel has no {tool}"}))
        return
    with ProcessPoolExecutor() as pool:
        found = pool.map(_compiled, repeat(configurations), names, repeat(tool))
        compiled = dict(zip(names, found, strict=True))
    sys.stdout.write(table(compiled) if "--table" in sys.argv else json.dumps(compiled))


def _compiled(configurations: Callable[[], Configurations], name: str, tool: Path) -> Facts:
    return configurations()[name](tool)


def table(compiled: dict[str, Facts]) -> str:
    columns = list(dict.fromkeys(column for found in compiled.values() for column in found))
    rows = [["configuration", *columns], ["---"] + ["---:"] * len(columns)]
    rows += [[n, *(str(found.get(c, "")) for c in columns)] for n, found in compiled.items()]
    lines = [f"Triton {triton.__version__}", "", *("| " + " | ".join(r) + " |" for r in rows), ""]
    return "\n".join(lines)
