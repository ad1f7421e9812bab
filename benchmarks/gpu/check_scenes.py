"""What the checks compute: ragged batches with everything that makes a kernel go wrong in them."""

from collections.abc import Sequence

from benchmarks.gpu.scene import Shape, Tile
from executor.kernels.batch import Chunk
from executor.kernels.decode_layout import DecodeHeads
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import POOLED, Pattern, Rule, Sampled, VerticalSlash, by_budget

PATTERNS: tuple[Pattern, ...] = (
    POOLED,
    VerticalSlash(scored_rows=20),
    Rule.sink_local(2),
    Rule.strided(2, 3, 1),
    Sampled(),
)
BUDGETS = (1, 3, 6, 1000, 2, 5, 4, 9)
"""In blocks, all but the first, which is a piece."""


def pieces(blocks: int, tile: Tile) -> int:
    """A budget of so many `blocks` in pieces, and a few more where a block has several."""
    return 1 if blocks == 1 else blocks * tile.per_block + blocks % tile.per_block


def prompts(block: int, blocks: int) -> tuple[Chunk, ...]:
    """A long ragged prompt, a chunk from inside a block to inside another, one token, whole
    blocks."""
    return (
        Chunk(0, blocks * block + 5),
        Chunk((blocks // 2) * block + 7, (blocks // 4) * block + block // 2 + 3),
        Chunk(0, 1),
        Chunk(2 * block, 2 * block),
    )


def shares(shape: Shape, chunks: Sequence[Chunk], tile: Tile) -> list[HeadBlocks]:
    """All heads different; head 0 in two ranges of rows with rows of nobody between them, and head
    1 not at all."""
    # A strided pattern's blocks are square.
    patterns = [x for x in PATTERNS if tile.per_block == 1 or by_budget(x)]
    found = []
    for sequence, chunk in enumerate(chunks):
        first, last = _rows(chunk, tile)
        for head in range(shape.query_heads):
            group = head // shape.group_size
            budget = pieces(BUDGETS[(head + sequence) % len(BUDGETS)], tile)
            pattern = patterns[(3 * head + sequence) % len(patterns)]
            ranges = [(first, last)]
            if head == 0:
                third = (last - first) // 3
                ranges = [(first, first + third), (last - third, last)]
            if head == 1 and shape.query_heads > 1:
                ranges = []
            found += [
                HeadBlocks(head, group, budget, begin, end, sequence, pattern)
                for begin, end in ranges
            ]
    return found


def paired_heads(shape: Shape, chunks: Sequence[Chunk], tile: Tile) -> list[HeadBlocks]:
    """Two dense heads, then two of one rule, and so on; in odd sequences the first is alone."""
    found = []
    for sequence, chunk in enumerate(chunks):
        for head in range(shape.query_heads):
            same_rule = bool(head // 2 % 2)
            pattern: Pattern = Rule.sink_local(2) if same_rule else POOLED
            budget = 2 if sequence % 2 and not head else 3 if same_rule else 1000
            rows = _rows(chunk, tile)
            group = head // shape.group_size
            found.append(HeadBlocks(head, group, pieces(budget, tile), *rows, sequence, pattern))
    return found


def _rows(chunk: Chunk, tile: Tile) -> tuple[int, int]:
    return chunk.cached_tokens // tile.block, -(-chunk.total_tokens // tile.block)


def decoding(blocks: int, block: int) -> tuple[Chunk, ...]:
    """Long and odd, a whole number of blocks, one token."""
    totals = (blocks * block + 5, blocks * block, block - 1, 1, (blocks // 3) * block + 1)
    return tuple(Chunk(total - 1, 1) for total in totals)


def decode_lists(shape: Shape, sequences: int, tile: Tile) -> list[DecodeHeads]:
    """Packed groups of different budgets and patterns; in sequence 0 every head has its own list,
    in sequence 1 only a part of each list is computed."""
    found = []
    for sequence in range(sequences):
        for group in range(shape.kv_heads):
            heads = tuple(range(group * shape.group_size, (group + 1) * shape.group_size))
            packs = [(head,) for head in heads] if sequence == 0 else [heads]
            for number, pack in enumerate(packs):
                budget = pieces(BUDGETS[(group + sequence + number) % len(BUDGETS)], tile)
                pattern = PATTERNS[(3 * number + group + sequence) % len(PATTERNS)]
                part = (0.3, 0.8) if sequence == 1 else (0.0, 1.0)
                found.append(DecodeHeads(sequence, sequence, group, pack, budget, part, pattern))
    return found
