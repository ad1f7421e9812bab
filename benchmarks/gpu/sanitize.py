"""Every kernel once on small shapes under compute-sanitizer: `run_all.sh sanitize`.

    python -m benchmarks.gpu.sanitize [--seconds 240] [--tiny]

memcheck sees reads and writes outside of tensors, racecheck hazards in shared memory; memcheck goes
first. Both make a kernel many times slower, so that three settings must do. Each tool has its share
of the time, and what it did not come to is told. Exit codes: 1 where a tool or a check found
something, 3 where nothing was found but a tool did not finish, else 0.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

TOOLS = {"memcheck": 0.6, "racecheck": 0.4}
"""The order, and each one's share of the time."""
SETTINGS = ("bf16-d128-64x64", "bf16-d128-64x16", "fp16-d64-128x128")
BLOCKS = 8
FOUND = 9
"""Exit code of compute-sanitizer where its tool found something."""
GRACE_S = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--tiny", action="store_true", help="in the interpreter, on a CPU")
    parser.add_argument("--under-tool", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.under_tool:
        sys.exit(checked(arguments.seconds, arguments.tiny))
    if shutil.which("compute-sanitizer") is None and not arguments.tiny:
        sys.exit("compute-sanitizer is not on the path: it comes with CUDA's compiler")
    # What `timeout` sends: the tool that is at work is ended and the rest left out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    until = time.time() + arguments.seconds
    codes = dict.fromkeys(TOOLS, 3)
    try:
        for number, tool in enumerate(TOOLS):
            left = list(TOOLS.values())[number:]
            seconds = (until - time.time()) * left[0] / sum(left)
            codes[tool] = under(tool, seconds, arguments.tiny)
    except KeyboardInterrupt:
        print("stopped by a signal")
    for tool, code in codes.items():
        said = {0: "finished, nothing found", 3: "did not finish, nothing found until then"}
        print(f"{tool}: {said.get(code, f'found something (exit code {code})')}", flush=True)
    sys.exit(1 if any(code not in (0, 3) for code in codes.values()) else max(codes.values()))


def under(tool: str, seconds: float, tiny: bool) -> int:
    """Exit code of the checks under a tool: as `checked`, or FOUND, or 3 where it was ended."""
    command = [sys.executable, "-m", "benchmarks.gpu.sanitize", "--under-tool"]
    command += ["--seconds", str(seconds), *(["--tiny"] if tiny else [])]
    if not tiny:
        options = ["--tool", tool, "--error-exitcode", str(FOUND)]
        command = ["compute-sanitizer", *options, *command]
    print(f"== {tool}, {seconds:.0f} s", flush=True)
    # Every tensor in an allocation of its own, so that a step beyond its end is seen.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    # In a group of its own: the tool starts the program as its child.
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return process.wait(None if tiny else seconds + GRACE_S)
    except subprocess.TimeoutExpired:
        return 3
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def checked(seconds: float, tiny: bool) -> int:
    """Run the checks: 1 where one failed, 3 where not all had the time, else 0."""
    if tiny:
        os.environ["TRITON_INTERPRET"] = "1"
    from benchmarks.gpu.check import Setting, cases, settings
    from benchmarks.gpu.check_units import POINTERS
    from benchmarks.gpu.section import Section
    from benchmarks.gpu.summary import failures, late

    # There is no memory to check in the interpreter: `run_all.sh --tiny` tries every case there.
    part = POINTERS if tiny else None
    chosen = settings(tiny)[:1] if tiny else [Setting.of(name) for name in SETTINGS]
    until = time.time() + seconds
    with tempfile.TemporaryDirectory() as folder:
        section = Section("sanitize", Path(folder), tiny=tiny, until=until, ends=until)
        for setting in chosen:
            small = replace(setting, blocks=min(BLOCKS, setting.blocks))
            for name, call in cases(small, section.device, tiny, part):
                # Other numbers and a capture are computed by the same kernels.
                if "large logits" not in name and "graph" not in name:
                    section.attempt(f"{setting.name} {name}", call)
    failed, skipped = failures(section.rows), late(section.rows)
    print(
        f"{len(section.rows)} cases, failed: {[row['case'] for row in failed]}, "
        f"not begun: {[row['case'] for row in skipped]}",
        flush=True,
    )
    return 1 if failed else 3 if skipped else 0


if __name__ == "__main__":
    main()
