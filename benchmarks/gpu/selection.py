"""What choosing the blocks costs beside the attention it saves, and beside what is left of it.

A decode chooses by its pages' bounds, and what that costs is what a whole step (the newest pages'
bounds, the choice, attention) takes beyond its attention.
"""

from functools import partial

from benchmarks.gpu.decode import BLOCK, timed_step
from benchmarks.gpu.dense import dense_columns
from benchmarks.gpu.plans import PATTERNS
from benchmarks.gpu.rows import Row
from benchmarks.gpu.scene import LLAMA_8B, TINY, problems, prompt_bytes
from benchmarks.gpu.section import Section
from benchmarks.gpu.timing import rotation, timed
from benchmarks.gpu.uniform_sparse import budget_for
from benchmarks.gpu.work import prefill_work

TOKENS = (32_768, 131_072, 65_536, 8_192)
DECODES = ((1, 32_768), (16, 32_768), (1, 131_072), (16, 131_072), (1, 8_192))
"""Batch and context."""
DENSITY = 0.1
Case = tuple[int, int, str, float]
"""Tokens, block, pattern and density."""


def run(section: Section) -> None:
    first, others = _cases(section.tiny)
    _prefills(section, first)
    for batch, context in ((2, 48),) if section.tiny else DECODES:
        name = f"page bounds batch {batch} context {context}"
        section.attempt(name, partial(_decoded, section, batch, context))
    _prefills(section, others)


def _cases(tiny: bool) -> tuple[list[Case], list[Case]]:
    """What an engine would run by default, then longer blocks and a density that saves less."""
    if tiny:
        return [(64, 16, pattern, DENSITY) for pattern in PATTERNS], []
    first = [(tokens, 64, pattern, DENSITY) for tokens in TOKENS for pattern in PATTERNS]
    longer = [(tokens, 128, pattern, DENSITY) for tokens in TOKENS for pattern in PATTERNS]
    denser = [(tokens, 64, pattern, 0.5) for tokens in TOKENS for pattern in ("sampled", "pooled")]
    return first, longer + denser


def _prefills(section: Section, cases: list[Case]) -> None:
    for tokens, block, pattern, density in cases:
        name = f"{pattern} {tokens} block {block} density {density}"
        section.attempt(name, partial(_measured, section, tokens, block, pattern, density))


def _measured(section: Section, tokens: int, block: int, pattern: str, density: float) -> Row:
    """`of_saved`: selection over (dense - sparse) attention; the aim is 0.1 from 32K on."""
    shape = TINY if section.tiny else LLAMA_8B
    sets = problems(
        shape,
        tokens,
        block,
        budget_for(density, -(-tokens // block)),
        device=section.device,
        sets=rotation(prompt_bytes(shape, tokens)),
        pattern=PATTERNS[pattern],
    )
    queued = timed([each.choose for each in sets], seconds=0.05)
    replayed = timed([each.choose for each in sets], seconds=0.1, graph=True)
    attended = timed([each.attend for each in sets], seconds=0.1)
    dense_s, dense_work = dense_columns(section, shape, tokens, block)
    layout, item_bytes = sets[0].layout, sets[0].tensors.q.element_size()
    work = partial(prefill_work, layout, shape.head_dim, item_bytes)
    return {
        "tokens": tokens,
        "block": block,
        "pattern": pattern,
        "density": density,
        **replayed.figures("select"),
        "select_queued_s": queued.median_s,
        "attend_s": attended.median_s,
        "dense_s": dense_s,
        "of_saved": replayed.median_s / max(dense_s - attended.median_s, 1e-12),
        "of_dense": replayed.median_s / dense_s,
        "of_attention": replayed.median_s / attended.median_s,
        "work": {
            "select_s": work(attends=False, chooses=True),
            "attend_s": work(),
            **dense_work,
        },
    }


def _decoded(section: Section, batch: int, context: int) -> Row:
    """An eighth of the blocks; `of_saved_decoding` as `of_saved`."""
    blocks = -(-context // (16 if section.tiny else BLOCK))
    dense, sparse = (timed_step(section, batch, context, n) for n in (blocks, max(blocks // 8, 1)))
    choosing = sparse["step_s"] - sparse["s"]
    return {
        "batch": batch,
        "context": context,
        "bounds_s": sparse["bounds_s"],
        "select_s": sparse["select_s"],
        "attend_s": sparse["s"],
        "step_s": sparse["step_s"],
        "dense_s": dense["s"],
        "of_saved_decoding": choosing / max(dense["s"] - sparse["s"], 1e-12),
        "saves": sparse["step_s"] < dense["s"],
        "work": {
            "select_s": sparse["work"]["select_s"],
            "attend_s": sparse["work"]["s"],
            "step_s": sparse["work"]["step_s"],
            "dense_s": dense["work"]["s"],
        },
    }
