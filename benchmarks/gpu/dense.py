"""Dense causal prefill, 8K to 128K, at both block sizes; beside it SDPA and FlexAttention.

TFLOP/s by the usual count for causal attention, 2 * heads * tokens^2 * head_dim. Every section that
needs a dense time takes it from here: `timed_dense` measures a problem once a run.
"""

from functools import partial

import torch

from benchmarks.gpu import peers as others
from benchmarks.gpu.rows import Row
from benchmarks.gpu.scene import LLAMA_8B, TINY, Problem, Shape, problems, prompt_bytes
from benchmarks.gpu.section import Section
from benchmarks.gpu.timing import rotation, timed
from benchmarks.gpu.work import prefill_work

TOKENS = (131_072, 32_768, 8_192, 65_536, 16_384)
BLOCKS = (64, 128)
FLEX_S = 45.0
"""FlexAttention compiles anew for every shape: 8 to 12 s where nothing is in the way."""


def run(section: Section) -> None:
    shape = TINY if section.tiny else LLAMA_8B
    for tokens in (64,) if section.tiny else TOKENS:
        for block in (16,) if section.tiny else BLOCKS:
            for paged in (False, True):
                name = f"ours {tokens} block {block} {'paged' if paged else 'contiguous'}"
                section.attempt(name, partial(timed_dense, section, shape, tokens, block, paged))


def timed_dense(
    section: Section, shape: Shape, tokens: int, block: int, paged: bool = False
) -> Row:
    """Dense attention of one prompt by our own kernel; measured once a run."""
    heads = f"{shape.query_heads} of {shape.kv_heads} x {shape.head_dim}"
    name = f"dense {heads} {tokens} block {block} {'paged' if paged else 'contiguous'}"
    return section.shared(name, partial(_ours, section.device, shape, tokens, block, paged))


def dense_columns(
    section: Section, shape: Shape, tokens: int, block: int
) -> tuple[float, dict[str, Row]]:
    """Seconds of `timed_dense`, and its work as a row's column `dense_s` has it."""
    found = timed_dense(section, shape, tokens, block)
    return found["s"], {"dense_s": found["work"]["s"]}


def _ours(device: torch.device, shape: Shape, tokens: int, block: int, paged: bool) -> Row:
    sets = _problems(device, shape, tokens, block, paged)
    took = timed([each.attend for each in sets])
    first = sets[0]
    return {
        "tokens": tokens,
        "query_heads": shape.query_heads,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "block": block,
        "paged": paged,
        **took.figures(),
        "tflops": _tflops(first, took.median_s),
        "work": {"s": prefill_work(first.layout, shape.head_dim, first.tensors.q.element_size())},
    }


def peers(section: Section) -> None:
    for tokens in (64,) if section.tiny else TOKENS:
        for backend in others.sdpa_backends():
            section.attempt(f"sdpa {backend} {tokens}", partial(_sdpa, section, tokens, backend))
    # A compilation each: after what needs none.
    for tokens in (64,) if section.tiny else TOKENS:
        section.attempt(f"flex {tokens}", partial(_flex, section, tokens), FLEX_S)


def _problems(
    device: torch.device, shape: Shape, tokens: int, block: int, paged: bool = False
) -> list[Problem]:
    sets = rotation(prompt_bytes(shape, tokens))
    whole = -(-tokens // block)
    return problems(shape, tokens, block, whole, device=device, sets=sets, paged=paged)


def _peers_problems(section: Section, tokens: int) -> list[Problem]:
    shape, block = (TINY, 16) if section.tiny else (LLAMA_8B, 128)
    return _problems(section.device, shape, tokens, block)


def _sdpa(section: Section, tokens: int, backend: str) -> Row:
    sets = _peers_problems(section, tokens)
    row: Row = {"tokens": tokens, "peer": f"sdpa {backend}"}
    with others.recorded(row, backend):
        calls = [
            others.sdpa(
                each.tensors.q,
                each.tensors.cache.keys,
                each.tensors.cache.values,
                others.sdpa_backends()[backend],
                causal=True,
            )
            for each in sets
        ]
        took = timed(calls)
        row |= {**took.figures(), "tflops": _tflops(sets[0], took.median_s)}
    return row


def _flex(section: Section, tokens: int) -> Row:
    first = _peers_problems(section, tokens)[0]
    row: Row = {"tokens": tokens, "peer": "flex"}
    with others.recorded(row, "flex"):
        call = others.flex_dense(first)
        row["compile_s"] = others.first_call_s(call)
        took = timed([call])
        row |= {**took.figures(), "tflops": _tflops(first, took.median_s)}
    return row


def _tflops(problem: Problem, seconds: float) -> float:
    heads, tokens, head_dim = problem.tensors.q.shape
    return 2 * heads * tokens * tokens * head_dim / seconds / 1e12
