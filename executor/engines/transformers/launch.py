"""A plan run by all its ranks on this machine: processes as torchrun starts them, by its launcher.

To load torch and transformers takes seconds of a core: one process does it, a fork of it launches
the ranks, and they are forks of that but on machines with GPUs: CUDA does not work in a fork of a
process that has asked for devices.
"""

import ctypes
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from json import dumps, loads
from multiprocessing.connection import Connection
from pathlib import Path
from uuid import uuid4

import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from executor.engines.transformers.parts import model_to_hold
from executor.engines.transformers.rank import RankRun, Request
from executor.errors import AttentionError
from executor.weights.execution_map import ExecutionMap
from solver.plans import Plan

STDOUT, STDERR = 1, 2
"""By number: what `sys.stderr` is may be no file."""
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([RankRun.__module__])

MALLOC = {-1: "MALLOC_TRIM_THRESHOLD_", -3: "MALLOC_MMAP_THRESHOLD_"}
"""Parameters of mallopt(3), and the variables that glibc reads them from when a process starts."""
KEPT_BYTES = 1 << 30
"""Of memory that a rank has freed, what it may keep for the next layer's tensors. glibc gives most
of it back, and every page that the system hands out anew is a fault and is zeroed first, which on a
CPU takes a good part of what surrounds attention."""


@dataclass(frozen=True)
class Run:
    """The tokens that followed a prompt, and seconds of attention, `[layers][ranks]`."""

    tokens: list[int]
    prompt_s: list[list[float]]
    decode_s: list[list[float]]


def run_ranks(folder: Path, request: Request, plan: Plan | None = None) -> Run:
    """Start a process for every rank of the map in `folder`, or of a plan that is not in it, and
    wait for all of them.

    Raises AttentionError where a rank fails, with the end of what it said, or where they do not
    say the same; and as `model_to_hold` does, or WeightsError for a folder without a map.
    """
    if plan is None:
        ranks = ExecutionMap.load(folder).layout.ranks
    else:
        model_to_hold(folder, plan)
        ranks = len(plan.devices)
    with tempfile.TemporaryDirectory(prefix="hplb-run-") as scratch:
        asked = Path(scratch) / "request.json"
        asked.write_text(dumps(asdict(request)))
        arguments = [str(folder), str(asked), scratch]
        if plan is not None:
            arguments.append(str(Path(scratch) / "plan.json"))
            plan.save(arguments[-1])
        as_ranks("executor.engines.transformers.rank", ranks, arguments, str(folder))
        files = [Path(scratch) / f"{rank}.json" for rank in range(ranks)]
        made = [RankRun(**loads(file.read_text())) for file in files]
    if any(rank.tokens != made[0].tokens for rank in made):
        raise AttentionError(f"{folder}: its ranks went on with different tokens")
    return Run(
        made[0].tokens,
        [list(layer) for layer in zip(*(rank.prompt_s for rank in made), strict=True)],
        [list(layer) for layer in zip(*(rank.decode_s for rank in made), strict=True)],
    )


def as_ranks(module: str, ranks: int, paths: Sequence[str], what: str) -> None:
    """Call a module's `main` with these paths in so many processes on this machine, a thread each,
    until all have ended.

    What they print goes to stderr. Raises AttentionError, which says `what` was run, where one
    fails.
    """
    said, err = os.pipe()
    with os.fdopen(said) as stderr:
        with Connection(os.dup(STDERR)) as out, Connection(err) as complaints:
            process = _context.Process(target=_launch, args=(module, ranks, paths, out, complaints))
            process.start()
        try:
            complained = stderr.read()
            process.join()
        except BaseException:
            # As this process is told to stop; it ends the ranks.
            process.terminate()
            process.join()
            raise
    if process.exitcode:
        raise AttentionError(f"{what}: a rank failed: {_fault(complained)}")


def _fault(stderr: str) -> str:
    """The line that says what went wrong: an exception's, before the others' that wait for it."""
    lines = [line.strip() for line in stderr.splitlines()]
    named = [line for line in lines if "Error: " in line and not line.startswith("raise ")]
    return (named or lines or ["it said nothing"])[0]


def _launch(
    module: str, ranks: int, paths: Sequence[str], out: Connection, err: Connection
) -> None:
    """All ranks, until they have ended."""
    for number, pipe in ((STDOUT, out), (STDERR, err)):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    import_module(module)
    launched = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=uuid4().hex,
        # As of torchrun --standalone: a port that is free.
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn" if torch.cuda.is_available() else "fork",
    )
    elastic_launch(launched, _rank)(module, paths)


def _rank(module: str, paths: Sequence[str]) -> None:
    _keep_freed_memory()
    import_module(module).main(*map(Path, paths))


def _keep_freed_memory() -> None:
    """This process keeps up to KEPT_BYTES of what it frees, where the C library is glibc."""
    libc = ctypes.CDLL(None)
    for parameter, variable in MALLOC.items():
        # What is set already has a reason.
        if hasattr(libc, "mallopt") and variable not in os.environ:
            libc.mallopt(parameter, KEPT_BYTES)
