"""What choosing pieces costs beside the attention it saves, and beside what is left of it.

Dense attention is that of square tiles of the same query blocks. A decode chooses by its pieces'
bounds, and what that costs is what a whole step (the newest pieces' bounds, the choice, attention)
takes beyond its attention.
"""

from functools import partial

from benchmarks.gpu.decode import PIECE, timed_step
from benchmarks.gpu.dense import dense_columns
from benchmarks.gpu.plans import PATTERNS
from benchmarks.gpu.rows import Row
from benchmarks.gpu.scene import LLAMA_8B, TINY, Tile, problems, prompt_bytes
from benchmarks.gpu.section import Section
from benchmarks.gpu.timing import rotation, timed
from benchmarks.gpu.uniform_sparse import budget_for
from benchmarks.gpu.work import prefill_work
from executor.kernels.patterns import Pattern, Sampled

TOKENS = (32_768, 131_072, 65_536, 8_192)
DECODES = ((1, 32_768), (16, 32_768), (1, 131_072), (16, 131_072), (1, 8_192))
"""Batch and context."""
SCORED = ("sampled", "pooled", "vertical_slash")
TWO_ROWS = "two sampled rows"
"""A quarter of the default's, for contexts whose selection would cost too much."""
CHOSEN: dict[str, Pattern] = PATTERNS | {TWO_ROWS: Sampled(2)}
DENSITY = 0.1
BLOCKS, PIECES, LONG_BLOCKS = Tile(64, 64), Tile(64, 16), Tile(128, 128)
Case = tuple[int, Tile, str, float]
"""Tokens, sizes, pattern and density."""


def run(section: Section) -> None:
    first, others = _cases(section.tiny)
    _prefills(section, first)
    piece = 16 if section.tiny else PIECE
    for batch, context in ((2, 48),) if section.tiny else DECODES:
        name = f"page bounds batch {batch} context {context}"
        section.attempt(name, partial(_decoded, section, batch, context, piece))
    _prefills(section, others)


def _cases(tiny: bool) -> tuple[list[Case], list[Case]]:
    """What an engine would run by default, and in pieces; then longer blocks and a density that
    saves less."""
    if tiny:
        pieces = [(64, Tile(32, 16), pattern, DENSITY) for pattern in SCORED]
        return [(64, Tile(16, 16), pattern, DENSITY) for pattern in CHOSEN] + pieces, []
    first = [(tokens, BLOCKS, pattern, DENSITY) for tokens in TOKENS for pattern in PATTERNS]
    first += [(tokens, PIECES, pattern, DENSITY) for tokens in TOKENS for pattern in SCORED]
    first += [
        (tokens, tile, TWO_ROWS, DENSITY) for tokens in TOKENS[:3] for tile in (BLOCKS, PIECES)
    ]
    longer = [(tokens, LONG_BLOCKS, pattern, DENSITY) for tokens in TOKENS for pattern in PATTERNS]
    half = [(tokens, BLOCKS, pattern, 0.5) for tokens in TOKENS for pattern in SCORED[:2]]
    return first, longer + half


def _prefills(section: Section, cases: list[Case]) -> None:
    for tokens, tile, pattern, density in cases:
        name = f"{pattern} {tokens} {tile} density {density}"
        section.attempt(name, partial(_measured, section, tokens, tile, pattern, density))


def _measured(section: Section, tokens: int, tile: Tile, pattern: str, density: float) -> Row:
    """`of_saved`: selection over (dense - sparse) attention; the aim is 0.1 from 32K on."""
    shape = TINY if section.tiny else LLAMA_8B
    sets = problems(
        shape,
        tokens,
        tile,
        budget_for(density, -(-tokens // tile.block), tile.per_block),
        device=section.device,
        sets=rotation(prompt_bytes(shape, tokens)),
        pattern=CHOSEN[pattern],
    )
    queued = timed([each.choose for each in sets], seconds=0.05)
    replayed = timed([each.choose for each in sets], seconds=0.1, graph=True)
    attended = timed([each.attend for each in sets], seconds=0.1)
    dense_s, dense_work = dense_columns(section, shape, tokens, Tile.square(tile.block))
    layout, item_bytes = sets[0].layout, sets[0].tensors.q.element_size()
    work = partial(prefill_work, layout, shape.head_dim, item_bytes)
    return {
        "tokens": tokens,
        "block": tile.block,
        "piece": tile.piece,
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


def _decoded(section: Section, batch: int, context: int, piece: int) -> Row:
    """An eighth of the pieces; `of_saved_decoding` as `of_saved`."""
    pieces = -(-context // piece)
    dense, sparse = (
        timed_step(section, batch, context, piece, n) for n in (pieces, max(pieces // 8, 1))
    )
    choosing = sparse["step_s"] - sparse["s"]
    return {
        "batch": batch,
        "context": context,
        "piece": piece,
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
