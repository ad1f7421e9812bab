"""Every kernel once on small shapes, for compute-sanitizer: `run_all.sh sanitize`.

memcheck sees reads and writes outside of tensors, racecheck hazards in shared memory. Both make a
kernel many times slower, so that two settings must do.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.gpu.check import cases, settings
from benchmarks.gpu.section import Section

WANTED = ((torch.bfloat16, 128, 64), (torch.float16, 64, 128))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--tiny", action="store_true", help="in the interpreter, on a CPU")
    arguments = parser.parse_args()
    chosen = [
        replace(setting, blocks=8)
        for setting in settings(arguments.tiny)
        if arguments.tiny or (setting.dtype, setting.head_dim, setting.block) in WANTED
    ]
    with tempfile.TemporaryDirectory() as folder:
        section = Section("sanitize", Path(folder), tiny=arguments.tiny, seconds=arguments.seconds)
        for setting in chosen:
            for name, call in cases(setting, section.device, arguments.tiny):
                # Other numbers and a capture are computed by the same kernels.
                if "large logits" not in name and "graph" not in name:
                    section.attempt(f"{setting.name} {name}", call)
    failed = [row["case"] for row in section.rows if not row.get("ok") and "skipped" not in row]
    print(f"{len(section.rows)} cases, failed: {failed}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
