"""What a compiled kernel takes of a multiprocessor, read off its machine code."""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any


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
