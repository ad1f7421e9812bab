"""What a measurement is asked to do: every choice that its figures depend on."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from re import fullmatch

from profiles.architecture import ITEM_BYTES
from profiles.errors import MeasuringError
from profiles.selection import POOLED, SAMPLED, Selection, SinkLocal, VerticalSlash
from profiles.sizes import sizes_fault

BLOCK_TOKENS = (16, 32, 64, 128)
MOST_POINTS = 24


@dataclass(frozen=True)
class Choices:
    """`prompts`: the most of each task at each context, None for all.

    The `block_tokens` rows of a query block share one list of key pieces of `piece_tokens`, which
    are blocks unless given. `sink_tokens` and `local_tokens` belong to every oracle budget, in
    whole pieces; the query block's own pieces always do. They default to one piece and one block,
    which is also all that the executor's scored selections force: with more, a selection may
    recover more than the oracle.
    """

    model: str
    data: Path
    contexts: tuple[int, ...]
    block_tokens: int = 64
    rows: int = 64
    prompts: int | None = None
    seed: int = 0
    selection: Selection = SAMPLED
    sink_tokens: int | None = None
    local_tokens: int | None = None
    gradients: bool = False
    device: str = "cpu"
    dtype: str = "float32"
    piece_tokens: int | None = None

    def __post_init__(self) -> None:
        for field, size in (("block_tokens", self.block_tokens), ("piece_tokens", self.piece)):
            if size not in BLOCK_TOKENS:
                known = ", ".join(map(str, BLOCK_TOKENS))
                raise MeasuringError(f"{field}: {size} is not one of {known}")
        fault = sizes_fault(self.block_tokens, self.piece)
        if fault is not None:
            raise MeasuringError(fault)
        if not self.contexts:
            raise MeasuringError("contexts: none given")
        if any(later <= sooner for sooner, later in pairwise(self.contexts)):
            raise MeasuringError(f"contexts: {self.contexts} must be strictly increasing")
        least = max(2 * self.block_tokens, self.rows)
        if self.contexts[0] < least:
            raise MeasuringError(
                f"contexts: {self.contexts[0]} tokens are too few: at least {least}, two blocks "
                "and as many as rows"
            )
        for field, lowest in (("rows", 1), ("prompts", 1), ("sink_tokens", 0), ("local_tokens", 0)):
            value = getattr(self, field)
            if value is not None and value < lowest:
                raise MeasuringError(f"{field}: {value} must be at least {lowest}")
        if self.seed < 0:
            raise MeasuringError(f"seed: {self.seed} must be at least 0")
        if self.selection.kind == "strided":
            raise MeasuringError("selection: a strided pattern has no budgets to measure")
        if self.dtype not in ITEM_BYTES:
            raise MeasuringError(f"dtype: {self.dtype!r} is not one of {', '.join(ITEM_BYTES)}")
        if not fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise MeasuringError(f"device: {self.device!r} is not cpu, cuda or cuda:N")

    @property
    def piece(self) -> int:
        """Tokens of a key piece."""
        return self.block_tokens if self.piece_tokens is None else self.piece_tokens

    @property
    def block_pieces(self) -> int:
        """Key pieces of a query block."""
        return self.block_tokens // self.piece

    @property
    def oracle_sink_tokens(self) -> int:
        """Sink tokens of the oracle: as given, or one piece."""
        return self.piece if self.sink_tokens is None else self.sink_tokens

    @property
    def oracle_local_tokens(self) -> int:
        """Local tokens of the oracle: as given, or one block."""
        return self.block_tokens if self.local_tokens is None else self.local_tokens

    def budgets(self) -> list[list[int]]:
        """Budgets in pieces, [contexts][points]: as many points in each context.

        No list is shorter than a query block's own pieces.
        """
        pieces = [-(-context // self.piece) for context in self.contexts]
        points = min(MOST_POINTS, pieces[0] - self.block_pieces + 1)
        return [spaced(self.block_pieces, count, points) for count in pieces]


def selection_of(kind: str, sink_tokens: int) -> Selection:
    """The selection of a kind as it is measured unless asked for in detail.

    Raises MeasuringError for a kind that has no budgets to measure, or that there is not.
    """
    match kind:
        case "sampled":
            return SAMPLED
        case "pooled":
            return POOLED
        case "vertical_slash":
            return VerticalSlash()
        case "sink_local":
            return SinkLocal(sink_tokens=sink_tokens)
        case _:
            raise MeasuringError(
                f"selection: {kind!r} is not one of sampled, pooled, vertical_slash, sink_local"
            )


def spaced(first: int, last: int, points: int) -> list[int]:
    """`points` whole numbers from `first` to `last`, rising, as geometric as they can be.

    >>> spaced(1, 64, 10)
    [1, 2, 3, 5, 8, 12, 18, 27, 42, 64]
    >>> spaced(1, 4, 4)
    [1, 2, 3, 4]
    >>> spaced(4, 64, 5)
    [4, 8, 16, 32, 64]
    """
    found = [first]
    for left in range(points - 1, 0, -1):
        latest = found[-1]
        found.append(max(latest + 1, round(latest * (last / latest) ** (1 / left))))
    return found
