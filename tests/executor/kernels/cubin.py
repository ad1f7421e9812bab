"""A kernel compiled as its launcher would, and what it takes of a multiprocessor; no GPU needed.

To compile all configurations takes minutes of a core, so what the compiler made of each is recorded
beside the script that names them (`--record`), under a digest of the kernel's sources, its options
and Triton's version: with `--recorded` those are compiled whose digest is new, and one in sixteen
of the others to see that the record is true.
"""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from executor.kernels.chip import A100, H100, RESERVED_BYTES, Chip

Facts = dict[str, Any]
CHIPS = {90: H100, 80: A100}
"""By compute capability."""
ITEM_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
FLAGS = ("--table", "--recorded", "--record")
ONE = "constexpr"
"""The type of a stride of 1, which the launcher takes for a constant."""
SIXTEENS = [["tt.divisibility", 16]]
WARPS = 64
"""That a multiprocessor holds at once, on sm_80 and sm_90 (CUDA C++ programming guide)."""
QUARTER_REGISTERS = 16384
"""Of each of a multiprocessor's four parts; a warp gets them 256 at a time."""
CUOBJDUMP = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
INSTRUCTIONS = {
    "wgmma": "wgmma.mma_async",
    "async_copies": "cp.async.cg",
    "tma_copies": "cp.async.bulk.tensor",
    "reads_of_sm": "%smid",
}
"""What is counted in PTX, by what it is called here."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a kernel: of a thread, of a program, and how often `INSTRUCTIONS`.

    `tiles` are the shapes that lie in shared memory, as Triton writes them.
    """

    registers: int
    stack_bytes: int
    local_bytes: int
    shared_bytes: int
    warps: int
    instructions: dict[str, int]
    tiles: list[str]

    def resources(self, chip: Chip = H100) -> Facts:
        """Registers a thread, bytes of stack and local memory, shared bytes of a program, whether
        that fits `chip`, and programs that a multiprocessor holds at once."""
        by_registers = 4 * (QUARTER_REGISTERS // (-(-self.registers // 8) * 256))
        by_warps = min(WARPS, by_registers) // self.warps
        by_bytes = chip.shared_bytes // (self.shared_bytes + RESERVED_BYTES)
        return {
            "registers": self.registers,
            "stack_bytes": self.stack_bytes,
            "local_bytes": self.local_bytes,
            "shared_bytes": self.shared_bytes,
            "fits": self.shared_bytes <= chip.program_bytes,
            "programs_per_sm": min(by_warps, by_bytes),
        }

    def buffers(self, keys: int, head_dim: int) -> int:
        """Tiles of K (or of V) that shared memory holds at once: how far ahead they are loaded."""
        wanted = re.compile(rf"(?:1x)*(\d+)x(?:1x)*{keys}x{head_dim}")
        found = [wanted.fullmatch(tile) for tile in self.tiles]
        return max((int(tile[1]) for tile in found if tile), default=1)


@dataclass(frozen=True)
class Launch:
    """`kernel` for aligned tensors: `types` by parameter, a NamedTuple of types for a group.

    Capitals among `options` are its constexprs, the others are Triton's. Everything but what the
    kernel does not specialise on is divisible by 16, as pointers and strides of rows are.
    `facts` says what tests and readers are told.
    """

    kernel: Any
    types: dict[str, Any]
    options: dict[str, Any]
    facts: Callable[[Compiled], Facts]
    capability: int = 90

    @property
    def digest(self) -> str:
        """Of everything that decides what the compiler makes of it."""
        said = [triton.__version__, self.kernel.cache_key, self.types, self.options]
        return hashlib.sha256(repr([*said, self.capability]).encode()).hexdigest()[:16]

    def compile(self) -> Compiled:
        kernel, types, options = self.kernel, self.types, self.options
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
        made = triton.compile(
            ASTSource(kernel, signature, constants, attributes),
            target=GPUTarget("cuda", self.capability, 32),
            options={name: value for name, value in options.items() if not name.isupper()},
        )
        with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
            cubin.write(made.asm["cubin"])
            cubin.flush()
            usage = subprocess.check_output([CUOBJDUMP, "-res-usage", cubin.name], text=True)
        used = {name: int(n) for name, n in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
        return Compiled(
            used["REG"],
            used["STACK"],
            used["LOCAL"],
            made.metadata.shared,
            made.metadata.num_warps,
            {name: made.asm["ptx"].count(text) for name, text in INSTRUCTIONS.items()},
            sorted(set(re.findall(r"memdesc<(\d+(?:x\d+)*)x", made.asm["ttgir"]))),
        )


Configurations = dict[str, Callable[[], Launch]]
"""What is launched in each configuration, by its name."""


def main(configurations: Callable[[], Configurations], script: str) -> None:
    """Compile those that the command line names, or all, and print what came out as JSON, with
    `--table` as Markdown; `--recorded` and `--record`, beside `script`: see above."""
    every = configurations()
    names = [word for word in sys.argv[1:] if word not in FLAGS] or list(every)
    unknown = [name for name in names if name not in every]
    if unknown:
        sys.exit(f"no configuration {unknown[0]!r}")
    if "--record" in sys.argv and names != list(every):
        sys.exit("a record is of all configurations: name none with --record")
    if not CUOBJDUMP.exists():
        sys.stdout.write(json.dumps({"missing": f"Triton's wheel has no {CUOBJDUMP}"}))
        return
    record = Path(script).with_suffix(".json")
    launches = {name: every[name]() for name in names}
    known = _read(record) if "--recorded" in sys.argv else {}
    made = _made(configurations, launches, known)
    if "--record" in sys.argv:
        _write(record, {launch.digest: made[name] for name, launch in launches.items()})
    facts = {name: launch.facts(made[name]) for name, launch in launches.items()}
    sys.stdout.write(table(facts) if "--table" in sys.argv else json.dumps(facts))


def _made(
    configurations: Callable[[], Configurations],
    launches: dict[str, Launch],
    known: Mapping[str, Compiled],
) -> dict[str, Compiled]:
    """By name; compiled where it is not `known`, or is one of those that are looked at again."""
    digests = {name: launch.digest for name, launch in launches.items()}
    todo = [n for n, digest in digests.items() if digest not in known or digest.startswith("0")]
    if new := sum(digest not in known for digest in digests.values()):
        sys.stderr.write(f"{new} configurations to compile that are not recorded\n")
    with ProcessPoolExecutor() as pool:
        found = dict(zip(todo, pool.map(_compiled, repeat(configurations), todo), strict=True))
    wrong = [n for n in todo if known.get(digests[n], found[n]) != found[n]]
    if wrong:
        sys.exit(f"{wrong[0]!r} is recorded as {known[digests[wrong[0]]]}, not {found[wrong[0]]}")
    return {name: found.get(name) or known[digest] for name, digest in digests.items()}


def _compiled(configurations: Callable[[], Configurations], name: str) -> Compiled:
    return configurations()[name]().compile()


def _read(record: Path) -> dict[str, Compiled]:
    found = json.loads(record.read_text()) if record.exists() else {}
    return {digest: Compiled(**compiled) for digest, compiled in found.items()}


def _write(record: Path, made: Mapping[str, Compiled]) -> None:
    """A line for each, so that a change shows what it changes."""
    lines = [f"{json.dumps(digest)}: {json.dumps(asdict(made[digest]))}" for digest in sorted(made)]
    record.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def table(compiled: dict[str, Facts]) -> str:
    columns = list(dict.fromkeys(column for found in compiled.values() for column in found))
    rows = [["configuration", *columns], ["---"] + ["---:"] * len(columns)]
    rows += [[n, *(str(found.get(c, "")) for c in columns)] for n, found in compiled.items()]
    lines = [f"Triton {triton.__version__}", "", *("| " + " | ".join(r) + " |" for r in rows), ""]
    return "\n".join(lines)
