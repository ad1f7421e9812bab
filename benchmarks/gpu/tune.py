"""Launch options tried on the GPU that is here, best first; the winners are written down by hand.

    python -m benchmarks.gpu.tune [--seconds 300] [--tiny]

Prefill: warps, pipeline stages, tensor descriptors or pointers, keys per step; dense and at a
density of a tenth; lists of pieces, whose keys are gathered; two heads to a program or one. Decode:
warps, stages, keys per step, programs per multiprocessor. What does not compile or fit is listed as
such. Each choice is checked against the usual one's result.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.decode import steps
from benchmarks.gpu.oracle import relative_error
from benchmarks.gpu.rows import Row
from benchmarks.gpu.scene import LLAMA_8B, TINY, Problem, Shape, Tile, problems
from benchmarks.gpu.section import Section
from benchmarks.gpu.timing import timed
from benchmarks.gpu.uniform_sparse import budget_for
from executor.attention.block_sparse import allowed_tma
from executor.kernels.chip import chip_of
from executor.kernels.triton import chunks as chunks_module
from executor.kernels.triton import decode as decode_module
from executor.kernels.triton import prefill as prefill_module
from executor.kernels.triton.prefill import long_enough

Choice = dict[str, Any]
TOKENS = 32_768
LIMIT = 2e-2
STAGES = {
    (True, True): (3, 5, 7),
    (True, False): (2, 3, 4),
    (False, True): (4, 7, 10),
    (False, False): (3, 5, 7),
}
"""Of prefill by descriptors or pointers (tma), from pages or not. Compiled for sm_90, those by
pointers hold 2, 3 and 4 tiles of K and of V: what lies between them compiles to the same."""


@contextmanager
def options(module: Any, choice: Choice) -> Iterator[None]:
    """The kernel module with parts of its launch options replaced."""
    usual = module.launch_options

    def chosen(*arguments: Any, **named: Any) -> dict[str, Any]:
        return {**usual(*arguments, **named), **choice}

    module.launch_options = chosen
    try:
        yield
    finally:
        module.launch_options = usual


def prefill_choices(tile: Tile, tma: bool, paged: bool, pack: bool) -> list[Choice]:
    """A descriptor reads a piece or a part of it at once; pointers gather any number of keys."""
    most = tile.piece if tma else tile.block
    keys = [keys for keys in ((64, 128) if tma else (32, 64, 128)) if keys <= most]
    # With four warps 128 rows spill.
    warps = (4, 8) if tile.block * (1 + pack) <= 64 else (8,)
    found = itertools.product(warps, STAGES[tma, paged], keys)
    return [{"num_warps": w, "num_stages": s, "KEYS": k} for w, s, k in found]


def decode_choices() -> list[Choice]:
    found = itertools.product((2, 4, 8), (4, 7, 10), (32, 64, 128))
    return [{"num_warps": w, "num_stages": s, "TILE": t} for w, s, t in found]


def tune_prefill(
    section: Section,
    shape: Shape,
    tile: Tile,
    density: float,
    *,
    paged: bool = True,
    pack: bool = False,
) -> None:
    """`paged`: in pages of a piece. `pack`: two heads that share a list share a program."""
    tokens = 64 if section.tiny else TOKENS
    sets = problems(
        shape,
        tokens,
        tile,
        budget_for(density, -(-tokens // tile.block), tile.per_block),
        device=section.device,
        sets=2,
        page_tokens=tile.piece if paged else 0,
        pack=pack,
    )
    sets[0].attend()
    usual = sets[0].tensors.out.double()
    name = f"prefill d{shape.head_dim} {tile} density {density}"
    name += f"{' paged' if paged else ' contiguous'}{', two heads' if pack else ''}"
    descriptors = chip_of(section.device).tma and allowed_tma() is None and long_enough(*tile)
    for tma in (True, False) if descriptors else (False,):
        others = [] if section.tiny else prefill_choices(tile, tma, paged, pack)
        for choice in [{}, *others]:
            section.attempt(
                f"{name} {choice} tma {tma}", partial(_prefill, sets, choice, tma, usual, name)
            )


def _prefill(sets: list[Problem], choice: Choice, tma: bool, usual: torch.Tensor, name: str) -> Row:
    with options(prefill_module, choice):

        def call(problem: Problem) -> None:
            x = problem.tensors
            prefill_module.prefill_attention(
                x.q, x.cache, problem.layout, problem.indices, x.out, x.lse, tma=tma
            )

        call(sets[0])
        error = relative_error(sets[0].tensors.out, usual)
        took = timed([partial(call, each) for each in sets], seconds=0.05)
    fine = error < LIMIT
    tflops = sets[0].flops / took.median_s / 1e12
    return {"of": name, "ok": fine, "relative_error": error, "s": took.median_s, "tflops": tflops}


def tune_decode(section: Section, shape: Shape, batch: int, context: int, piece: int) -> None:
    pieces = -(-context // piece)
    sets = steps(shape, batch, context, piece, pieces, device=section.device, sets=1)
    name = f"decode d{shape.head_dim} pieces of {piece} batch {batch} context {context}"
    sets[0].attend()
    usual = sets[0].tensors.out.double()
    choices = [{}] if section.tiny else [{}, *decode_choices()]
    for choice, programs in itertools.product(choices, (1, 2, 3, 4)):
        section.attempt(
            f"{name} {choice} programs {programs}",
            partial(_decode, sets, choice, programs, usual, name),
        )


def _decode(sets: list[Any], choice: Choice, programs: int, usual: torch.Tensor, name: str) -> Row:
    before = chunks_module.PROGRAMS_PER_SM
    chunks_module.PROGRAMS_PER_SM = programs
    try:
        with options(decode_module, choice):
            sets[0].attend()
            error = relative_error(sets[0].tensors.out, usual)
            took = timed([each.attend for each in sets], seconds=0.03, graph=True)
    finally:
        chunks_module.PROGRAMS_PER_SM = before
    return {"of": name, "ok": error < LIMIT, "relative_error": error, "s": took.median_s}


def best(rows: list[Row]) -> str:
    """The five fastest of every configuration."""
    fine = [row for row in rows if row.get("ok")]
    lines = []
    for name in dict.fromkeys(row["of"] for row in fine):
        ranked = sorted((row for row in fine if row["of"] == name), key=lambda row: row["s"])
        lines += [name, *(f"    {row['s'] * 1e6:10.1f} us  {row['case']}" for row in ranked[:5])]
    failed = [f"{row['case']}: {row.get('error')}"[:160] for row in rows if "trace" in row]
    return "\n".join([*lines, f"{len(failed)} did not run:", *failed[:20]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--tiny", action="store_true", help="in the interpreter, on a CPU")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        until = time.time() + arguments.seconds
        section = Section("tune", Path(folder), tiny=arguments.tiny, until=until, ends=until)
        if arguments.tiny:
            tune_prefill(section, TINY, Tile(16, 16), 0.5)
            tune_prefill(section, TINY, Tile(32, 16), 1.0, pack=True)
            tune_decode(section, TINY, 1, 48, 16)
        else:
            blocks, pieces = Tile(64, 64), Tile(64, 16)
            for paged in (True, False):
                tune_prefill(section, LLAMA_8B, pieces, 0.1, paged=paged)
            for density in (1.0, 0.1):
                tune_prefill(section, LLAMA_8B, blocks, density)
            for tile in (blocks, pieces):
                tune_prefill(section, LLAMA_8B, tile, 1.0, pack=True)
            for tile in (Tile(128, 64), Tile(128, 128), Tile(128, 16)):
                tune_prefill(section, LLAMA_8B, tile, 0.1)
            for batch, context in ((1, 8192), (16, 32_768)):
                tune_decode(section, LLAMA_8B, batch, context, 64)
            for head_dim in (64, 256):
                tune_prefill(section, Shape(16, 4, head_dim), blocks, 0.1)
    print(best(section.rows))


if __name__ == "__main__":
    main()
