"""Dense causal prefill, 8K to 128K: our kernel at both block sizes beside SDPA and FlexAttention.

TFLOP/s by the usual count for causal attention, 2 * heads * tokens^2 * head_dim.
"""

from functools import partial

from benchmarks.gpu import peers
from benchmarks.gpu.scene import LLAMA_8B, TINY, Problem, problems, prompt_bytes
from benchmarks.gpu.section import Row, Section
from benchmarks.gpu.timing import rotation, timed

TOKENS = (131_072, 32_768, 8_192, 65_536, 16_384)
BLOCKS = (128, 64)


def run(section: Section) -> None:
    for tokens in (64,) if section.tiny else TOKENS:
        for block in (16,) if section.tiny else BLOCKS:
            for paged in (False, True):
                name = f"ours {tokens} block {block} {'paged' if paged else 'contiguous'}"
                section.attempt(name, partial(_ours, section, tokens, block, paged))
        for backend in peers.sdpa_backends():
            section.attempt(f"sdpa {backend} {tokens}", partial(_sdpa, section, tokens, backend))
        section.attempt(f"flex {tokens}", partial(_flex, section, tokens))


def _problems(section: Section, tokens: int, block: int, paged: bool) -> list[Problem]:
    shape = TINY if section.tiny else LLAMA_8B
    sets = rotation(prompt_bytes(shape, tokens))
    whole = -(-tokens // block)
    return problems(shape, tokens, block, whole, device=section.device, sets=sets, paged=paged)


def _ours(section: Section, tokens: int, block: int, paged: bool) -> Row:
    sets = _problems(section, tokens, block, paged)
    took = timed([each.attend for each in sets])
    return {"tokens": tokens, "block": block, "paged": paged} | _rates(sets[0], took.figures())


def _sdpa(section: Section, tokens: int, backend: str) -> Row:
    sets = _problems(section, tokens, 128, False)
    row: Row = {"tokens": tokens, "peer": f"sdpa {backend}"}
    with peers.recorded(row, backend):
        calls = [
            peers.sdpa(
                each.tensors.q,
                each.tensors.cache.keys,
                each.tensors.cache.values,
                peers.sdpa_backends()[backend],
                causal=True,
            )
            for each in sets
        ]
        row |= _rates(sets[0], timed(calls).figures())
    return row


def _flex(section: Section, tokens: int) -> Row:
    sets = _problems(section, tokens, 128, False)[:2]
    row: Row = {"tokens": tokens, "peer": "flex"}
    with peers.recorded(row, "flex"):
        call = peers.flex_dense(sets[0])
        row |= _rates(sets[0], timed([call]).figures())
    return row


def _rates(problem: Problem, figures: dict[str, float | int]) -> Row:
    heads, tokens, head_dim = problem.tensors.q.shape
    flops = 2 * heads * tokens * tokens * head_dim
    return {**figures, "tflops": flops / figures["s"] / 1e12}
