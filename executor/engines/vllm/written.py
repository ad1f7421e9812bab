"""Weights of other layouts, written beside an engine that goes on serving.

`hplb apply` does it, in a process of its own and of low priority, for one rank of a machine; the
others wait for the same folder. No step waits for any of it.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from vllm.logger import init_logger

from executor.errors import WeightsError
from executor.weights.checkpoint import open_checkpoint
from executor.weights.execution_map import ExecutionMap
from executor.weights.slots import SlotLayout
from solver.plans import Plan

NICE = 10
"""How much whoever writes gives way: beside ranks that keep every core busy it gets a tenth of one;
with 19 it got next to nothing, and was not done in two minutes."""
NAME = 16
"""Characters of a layout's id that its folder is called by."""
ALONE = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
logger = init_logger("vllm.hplb")


class Written:
    """Of the model in `source`, whose weights have a plan's `layout`, by its id; in `folder`, which
    the engine's ranks share.

    There a layout has one folder, complete from when it is there.
    """

    def __init__(self, source: Path, layout: str, folder: Path) -> None:
        self._source, self._layout, self._folder = source, layout, folder
        self._faults: dict[str, str] = {}
        self._writing: tuple[str, subprocess.Popen[bytes]] | None = None

    def of(self, plan: Plan, layout: SlotLayout, kept: Callable[[], set[Path]]) -> Path | None:
        """Where the weights of a plan's layout are; None while they are being written.

        Where they must be, all but what is `kept` then is deleted. Raises WeightsError where they
        cannot be written, or are another layout's.
        """
        if layout.id == self._layout:
            return self._source
        place = self._folder / layout.id[:NAME]
        self._look()
        if place.is_dir():
            found = ExecutionMap.load(place).layout.id
            if found != layout.id:
                raise WeightsError(f"{place}: has the layout {found[:12]}, not {layout.id[:12]}")
            # vLLM would leave a tensor that is missing as it was.
            open_checkpoint(place)
            return place
        if place.name in self._faults:
            raise WeightsError(f"hplb apply: {self._faults[place.name]}")
        if self._writing is None:
            self._write(plan, place, kept)
        return None

    def _write(self, plan: Plan, place: Path, kept: Callable[[], set[Path]]) -> None:
        """Begin to, unless another rank has."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if place.is_dir():
                return
            self._clear(kept())
            asked = place.with_suffix(".json")
            plan.save(asked)
            command = [sys.executable, "-m", "api.main", "apply", f"--model={self._source}"]
            command += [f"--plan={asked}", f"--out={place}"]
            with place.with_suffix(".log").open("wb") as out:
                # The lock is the child's, too: no other rank begins while it writes.
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env={**os.environ, **ALONE},
                    pass_fds=(lock,),
                )
            os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
            # A rank may be bound to one core, which it needs.
            os.sched_setaffinity(process.pid, range(os.cpu_count() or 1))
            self._writing = place.name, process
            # Else it would stay a zombie until the next plan.
            Thread(target=process.wait, name="hplb-written", daemon=True).start()
            logger.info("HPLB: writing the weights of plan %s to %s", plan.id[:12], place)
        finally:
            os.close(lock)

    def _clear(self, kept: set[Path]) -> None:
        """What earlier plans needed, and what was left half written; never what all are made from,
        for an engine may have been started on one of these folders."""
        spared = {each.resolve() for each in (self._source, *kept)}
        for each in self._folder.iterdir():
            if each.is_dir() and each.resolve() not in spared:
                shutil.rmtree(each, ignore_errors=True)
            elif each.suffix in (".json", ".log"):
                each.unlink()

    def _look(self) -> None:
        """Whether what this rank had begun to write is written."""
        if self._writing is None or self._writing[1].poll() is None:
            return
        name, process = self._writing
        self._writing = None
        if process.returncode:
            said = (self._folder / name).with_suffix(".log").read_text(errors="replace").split("\n")
            last = next((line for line in reversed(said) if line.strip()), "")
            self._faults[name] = last or f"ended with {process.returncode}"
            logger.error("HPLB: weights not written: %s", self._faults[name])


def weight_bytes(folder: Path) -> int:
    """Of a checkpoint's tensors."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
