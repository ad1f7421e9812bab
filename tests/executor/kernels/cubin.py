"""A kernel compiled as its launcher would, and what it takes of a multiprocessor."""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ONE = "constexpr"
"""The type of a stride of 1, which the launcher takes for a constant."""
SIXTEENS = [["tt.divisibility", 16]]


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


def resources(compiled: Any, cuobjdump: Path) -> dict[str, int]:
    """Registers a thread, bytes of stack and local memory, shared bytes of a program."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        usage = subprocess.check_output([cuobjdump, "-res-usage", cubin.name], text=True)
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return {
        "registers": found["REG"],
        "stack_bytes": found["STACK"],
        "local_bytes": found["LOCAL"],
        "shared_bytes": compiled.metadata.shared,
    }
