"""A GPU run on a machine without a GPU: `python -m tests.executor.fake_gpu_run FOLDER [arguments]`.

The supervising process is the real one, as are the workers but for what sections do:
FOLDER/deeds.json says it for every case of every section, and FOLDER/done.txt holds the names of
the cases that were begun. For torch, which takes seconds to load, stands what asks for a device.
"""

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

from benchmarks.gpu import __main__ as run
from benchmarks.gpu import suite
from benchmarks.gpu.crew import Crew

WORKER = "--fake-worker"
LIMIT_S = 3.0


class FakeTorch(ModuleType):
    """All that workers ask of torch: whether the device, which they have broken, still answers."""

    device = str

    def __init__(self) -> None:
        super().__init__("torch")
        self.cuda = SimpleNamespace(synchronize=self.fails, empty_cache=self.fails)

    def fails(self) -> None:
        raise RuntimeError("no answer")


def do(deed: str, begun: Path, case: str) -> dict[str, object]:
    with begun.open("a") as file:
        file.write(f"{case}\n")
    if deed == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    while deed in ("hang", "last"):
        time.sleep(0.1)
    if deed in ("error", "broken"):
        if deed == "error":
            import torch

            # The device still answers.
            torch.cuda.synchronize = torch.cuda.empty_cache = lambda: None
        raise RuntimeError("no such kernel")
    if deed == "missing":
        return {"peer_unavailable": "no such library"}
    return {"s": 1.0, "tma": os.environ.get("HPLB_TMA"), "ok": deed != "wrong"}


def work(folder: Path) -> None:
    """A worker whose sections come from deeds.json."""
    deeds = json.loads((folder / "deeds.json").read_text())

    def attempt_all(section: object, *_: str) -> None:
        for case, deed in deeds.get(section.name, {}).items():
            limit_s = 1000.0 if deed == "last" else LIMIT_S
            section.attempt(case, partial(do, deed, folder / "done.txt", case), limit_s)

    fake = SimpleNamespace(run=attempt_all)
    sys.modules["torch"] = FakeTorch()
    sys.modules |= {f"benchmarks.gpu.{name.partition('-')[0]}": fake for name in deeds}
    suite.main()


def supervise(folder: Path) -> None:
    deeds = json.loads((folder / "deeds.json").read_text())
    gpu = {"gpu": "Fake 9000", "capability": [9, 0]}
    told = SimpleNamespace(machine=lambda commit: {"commit": commit, **gpu})
    sys.modules["benchmarks.gpu.machine"] = told
    run.units = lambda *_: [name for name in deeds if name.startswith("check-")]
    run.expanded = lambda names: [name for name in deeds if name in names]
    program = (sys.executable, "-m", "tests.executor.fake_gpu_run", str(folder), WORKER)
    run.Crew = partial(Crew, program=program)
    run.main()


if __name__ == "__main__":
    place = Path(sys.argv.pop(1))
    if sys.argv[1:2] == [WORKER]:
        sys.argv.pop(1)
        work(place)
    else:
        supervise(place)
