"""A plan run by all its ranks on this machine, with torchrun."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from json import dumps, loads
from pathlib import Path

from executor.engines.transformers.parts import model_to_hold
from executor.engines.transformers.rank import RankRun, Request
from executor.errors import AttentionError
from executor.weights.execution_map import ExecutionMap
from solver.plans import Plan

STDERR = 2
"""This process's own, by number: what `sys.stderr` is may be no file."""


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
        torchrun("executor.engines.transformers.rank", ranks, arguments, str(folder))
        files = [Path(scratch) / f"{rank}.json" for rank in range(ranks)]
        made = [RankRun(**loads(file.read_text())) for file in files]
    if any(rank.tokens != made[0].tokens for rank in made):
        raise AttentionError(f"{folder}: its ranks went on with different tokens")
    return Run(
        made[0].tokens,
        [list(layer) for layer in zip(*(rank.prompt_s for rank in made), strict=True)],
        [list(layer) for layer in zip(*(rank.decode_s for rank in made), strict=True)],
    )


def torchrun(module: str, ranks: int, arguments: Sequence[str], what: str) -> None:
    """Run a module as so many ranks on this machine, a thread each, until all have ended.

    What they print goes to stderr. Raises AttentionError, which says `what` was run, where one
    fails.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={ranks}", "-m", module, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, stdout=STDERR, stderr=subprocess.PIPE, text=True, env=environment)
    if ran.returncode:
        raise AttentionError(f"{what}: a rank failed: {_fault(ran.stderr)}")


def _fault(stderr: str) -> str:
    """The line that says what went wrong: an exception's, before torchrun's own account of it."""
    lines = [line.rsplit("]:", 1)[-1].strip() for line in stderr.splitlines()]
    named = [line for line in lines if "Error: " in line and not line.startswith("raise ")]
    return (named or lines or ["it said nothing"])[0]
