"""What choosing the blocks costs beside the attention it saves, and beside what is left of it."""

from functools import partial

from benchmarks.gpu.head_budgets import dense_seconds
from benchmarks.gpu.scene import LLAMA_8B, TINY, problems, prompt_bytes
from benchmarks.gpu.section import Row, Section
from benchmarks.gpu.timing import rotation, timed
from benchmarks.gpu.uniform_sparse import budget_for
from executor.kernels.patterns import POOLED, Pattern, SinkLocal, VerticalSlash

TOKENS = (32_768, 131_072, 65_536, 8_192)
PATTERNS: dict[str, Pattern] = {
    "pooled": POOLED,
    "vertical_slash": VerticalSlash(),
    "sink_local": SinkLocal(),
}
DENSITIES = (0.1, 0.5)


def run(section: Section) -> None:
    for tokens in (64,) if section.tiny else TOKENS:
        for block in (16,) if section.tiny else (64, 128):
            for pattern in PATTERNS:
                for density in DENSITIES if block == 64 and pattern == "pooled" else DENSITIES[:1]:
                    name = f"{pattern} {tokens} block {block} density {density}"
                    section.attempt(
                        name, partial(_measured, section, tokens, block, pattern, density)
                    )


def _measured(section: Section, tokens: int, block: int, pattern: str, density: float) -> Row:
    """`of_saved`: selection over (dense - sparse) attention; the aim is 0.1 from 32K on."""
    shape = TINY if section.tiny else LLAMA_8B
    budget = budget_for(density, -(-tokens // block))
    sets = problems(
        shape,
        tokens,
        block,
        budget,
        device=section.device,
        sets=rotation(prompt_bytes(shape, tokens)),
        pattern=PATTERNS[pattern],
    )
    queued = timed([each.choose for each in sets], seconds=0.1)
    replayed = timed([each.choose for each in sets], seconds=0.1, graph=True)
    attended = timed([each.attend for each in sets], seconds=0.1)
    dense_s = dense_seconds(shape, tokens, block, section.device)
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
        "of_attention": replayed.median_s / attended.median_s,
    }
