"""Two sizes in tokens: the block, query rows that share a list of keys, and the piece of that list.

They part because they cost differently: a large block loads keys for many rows at once, while small
pieces let a list hold the keys its rows need and few others. Budgets round up to pieces.

Counting is arithmetic on numbers and arrays alike, and needs neither numpy nor torch.
"""

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Numbers = TypeVar("Numbers", int, "NDArray[np.int64]", "NDArray[np.float64]")
Counts = TypeVar("Counts", int, "NDArray[np.int64]")

DEFAULT_BLOCK_TOKENS = 64
"""Where neither a request nor a measurement says otherwise."""
MAX_CONTEXT = 16 * 2**20
"""The longest context, in tokens, that is planned for."""


def sizes_fault(block_tokens: int, piece_tokens: int) -> str | None:
    """Why these two do not go together, beginning with the field's name."""
    if piece_tokens >= 1 and block_tokens % piece_tokens == 0:
        return None
    return f"piece_tokens: {piece_tokens} does not divide block_tokens, {block_tokens}"


def whole_pieces(tokens: Numbers, piece_tokens: int, least: int, most: int) -> Numbers:
    """Budgets in key pieces, rounded up, from `least` to `most`.

    >>> [whole_pieces(tokens, 16, least=4, most=13) for tokens in (1, 65, 1000)]
    [4, 5, 13]
    """
    pieces = -(-tokens // piece_tokens)
    pieces = pieces + (least - pieces) * (pieces < least)
    return pieces - (pieces - most) * (pieces > most)


def causal_pieces(pieces: Counts, query_blocks: Counts | int, block_pieces: int = 1) -> Counts:
    """Pieces in the lists of a causal prefill: the sum over query blocks i of min(pieces, (i+1) m).

    m is `block_pieces`.

    >>> [causal_pieces(pieces, query_blocks=4, block_pieces=4) for pieces in (4, 5, 13)]
    [16, 19, 37]
    """
    ramp = pieces // block_pieces
    ramp = ramp - (ramp - query_blocks) * (ramp > query_blocks)
    return block_pieces * ramp * (ramp + 1) // 2 + (query_blocks - ramp) * pieces


def gathered_pieces(
    pieces: Counts, query_blocks: Counts | int, every: int, block_pieces: int = 1
) -> Counts:
    """Of the pieces in the lists of the first `query_blocks`, those chosen among others.

    A list that holds all its query block can see is read as it lies, and so are a query block's
    own pieces. `every` is the pieces of the context, the most that `pieces` may be.

    >>> [gathered_pieces(pieces, 4, every=13, block_pieces=4) for pieces in (4, 5, 13)]
    [0, 2, 0]
    """
    ramp = pieces // block_pieces
    ramp = ramp - (ramp - query_blocks) * (ramp > query_blocks)
    own = query_blocks * block_pieces
    own = own - (own - every) * (own > every) - ramp * block_pieces
    return ((query_blocks - ramp) * pieces - own) * (pieces < every)
