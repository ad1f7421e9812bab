"""The plans that `make_plans` wrote, read without the planner."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.scene import Shape, Tile
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import POOLED, Pattern, Rule, Sampled, VerticalSlash

INPUTS = Path(__file__).parent / "inputs"
PATTERNS: dict[str, Pattern] = {
    "sampled": Sampled(),
    "pooled": POOLED,
    "vertical_slash": VerticalSlash(),
    "sink_local": Rule.sink_local(),
}
CONTIGUOUS = "adaptive contiguous"


@dataclass(frozen=True)
class Layer:
    """One layer at one context under every scheme: `devices[scheme][device]` is its share.

    Its pieces are as long as its blocks. `middle`: whether it is the middle one of the layers there
    are of its profile.
    """

    profile: str
    equal: str
    synthetic: bool
    shape: Shape
    context_tokens: int
    tile: Tile
    layer: int
    adaptive: tuple[int, ...]
    uniform: int
    pattern: Pattern
    kv_copies: dict[str, int]
    middle: bool
    devices: dict[str, list[list[HeadBlocks]]] = field(repr=False)

    @property
    def rows(self) -> int:
        """Query blocks of a prompt."""
        return -(-self.context_tokens // self.tile.block)


def layers(tiny: bool = False) -> Iterator[Layer]:
    """Every layer of every input, the middle layers first, of those the longest contexts."""
    found = [
        _layer(document, context, each, number == len(context["layers"]) // 2, tiny)
        for path in sorted(INPUTS.glob("*.json"))
        for document in [json.loads(path.read_text())]
        for context in document["contexts"]
        for number, each in enumerate(context["layers"])
    ]
    yield from sorted(found, key=lambda layer: (not layer.middle, -layer.context_tokens))


def _layer(
    document: dict[str, Any],
    context: dict[str, Any],
    layer: dict[str, Any],
    middle: bool,
    tiny: bool,
) -> Layer:
    shape = Shape(document["query_heads"], document["kv_heads"], document["head_dim"])
    tokens, block = context["context_tokens"], document["block_tokens"]
    rows = -(-tokens // block)
    # Tiny: the same plan in 3 rows of 16 tokens.
    scale = 3 / rows if tiny else 1
    adaptive = [_scaled(budget, scale) for budget in layer["adaptive_blocks"]]
    uniform = _scaled(layer["uniform_blocks"], scale)
    pattern = PATTERNS[document["pattern"]]
    contiguous = layer["schemes"][CONTIGUOUS]
    placed = {
        "dense contiguous": (contiguous, [rows] * len(adaptive)),
        "uniform contiguous": (contiguous, [uniform] * len(adaptive)),
        **{name: (scheme, adaptive) for name, scheme in layer["schemes"].items()},
    }

    def share(parts: list[int | list[int]], budgets: list[int]) -> list[HeadBlocks]:
        whole = [[part, 0, rows] if isinstance(part, int) else part for part in parts]
        return [
            HeadBlocks(
                head,
                head // shape.group_size,
                budgets[head],
                _boundary(first, scale),
                _boundary(last, scale),
                pattern=pattern,
            )
            for head, first, last in whole
        ]

    return Layer(
        document["name"],
        document["equal"],
        document["synthetic"],
        replace(shape, head_dim=16) if tiny else shape,
        48 if tiny else tokens,
        Tile.square(16 if tiny else block),
        layer["layer"],
        tuple(adaptive),
        uniform,
        pattern,
        {name: scheme["kv_copies"] for name, (scheme, _) in placed.items()},
        middle,
        {
            name: [share(parts, budgets) for parts in scheme["devices"]]
            for name, (scheme, budgets) in placed.items()
        },
    )


def _scaled(budget: int, scale: float) -> int:
    return budget if scale == 1 else max(1, round(budget * scale))


def _boundary(row: int, scale: float) -> int:
    return row if scale == 1 else round(row * scale)


def coarser(heads: list[HeadBlocks]) -> list[HeadBlocks]:
    """The same share in blocks twice as long: budgets rounded up, rows meeting where they met."""
    return [
        HeadBlocks(
            rows.head,
            rows.group,
            -(-rows.budget_pieces // 2),
            -(-rows.first // 2),
            -(-rows.last // 2),
            pattern=rows.pattern,
        )
        for rows in heads
    ]
