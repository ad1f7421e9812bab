"""Writes docs/results.md and the README's table; or checks that they are what the JSON says.

    python -m benchmarks.results_page [--check]

Run it whenever a file of `benchmarks/results` changes. --check writes nothing and ends with 1 where
a document is not what it would write.
"""

import argparse
import sys
import textwrap
from pathlib import Path

from benchmarks.markdown import replaced
from benchmarks.results_page import (
    cost_model,
    engines,
    faults,
    intake,
    kernels,
    placement,
    proofs,
    quality,
    real_model,
    search,
    serving,
)
from benchmarks.results_page.reports import Reports
from profiles.errors import HplbError

ROOT = Path(__file__).resolve().parents[2]
README, PAGE = Path("README.md"), Path("docs/results.md")
COMMAND = "benchmarks.results_page"
HEAD = f"""\
# Results

`python -m {COMMAND}` writes this page from `benchmarks/results/*.json`, and a test holds the two
together. Every section names the command, the hardware and the file of its figures; figures that
are worse than another method's stand beside the better ones. Seconds of GPUs are arithmetic, from
rates fitted to public measurements: what GPUs measured is in [gpu.md](gpu.md).

[Placement](#placement-on-the-heads-of-real-models) | [Proofs and speed](#proofs-and-speed) |
[Search](#the-search-part-by-part) | [Cost model](#the-cost-model) | [Kernels](#the-kernels) |
[Stock engine](#on-a-stock-engine) |
[Served](#requests-served) | [Quality](#quality) | [Intake](#measurements-coming-in) |
[Faults](#faults)
"""
WIDTH = 100


def documents(root: Path) -> dict[Path, str]:
    """Below a checkout's root: what each document must say, by its path."""
    reports = Reports(root / "benchmarks/results")
    parts = (
        placement,
        proofs,
        search,
        cost_model,
        kernels,
        engines,
        serving,
        quality,
        intake,
        faults,
    )
    page = "\n".join([HEAD, *(part.section(reports) for part in parts)])
    said = (root / README).read_text()
    tables = f"{placement.readme_table(reports)}\n\n{real_model.readme_table(reports)}"
    told = replaced(said, tables, COMMAND, str(README))
    return {root / PAGE: filled(page), root / README: told}


def filled(page: str) -> str:
    """Paragraphs filled to one width, whatever figures they got; one empty line between blocks."""
    blocks = [block for block in page.split("\n\n") if block.strip()]
    return "\n\n".join(_filled(block.strip("\n")) for block in blocks) + "\n"


def _filled(block: str) -> str:
    if block.startswith(("#", "|", "- ")):
        return block
    return textwrap.fill(block, WIDTH, break_long_words=False, break_on_hyphens=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where it would")
    check = parser.parse_args().check
    try:
        wanted = documents(ROOT)
    except HplbError as error:
        sys.exit(str(error))
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if not check:
            path.write_text(wanted[path])
        print(f"{path}: {'not what the results files say' if check else 'written'}")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
