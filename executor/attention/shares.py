"""Shares of heads: which rows of a prompt, or which part of a decoding list, a device computes."""

from collections.abc import Sequence
from dataclasses import dataclass

from executor.errors import AttentionError
from executor.kernels.batch import Chunk
from executor.kernels.patterns import SAMPLED, Pattern, by_budget
from profiles.sizes import sizes_fault

MOST_TOKENS = 2**30
"""Tokens are counted in int32 on the device."""
SHARE_ROUNDING = 1e-9
"""What sums of shares may be off by: they are sums of floats."""


@dataclass(frozen=True)
class HeadShare:
    """A device's part of one query head in one sequence of a step.

    `head` indexes the q given, `group` the cache's KV heads, `sequence` the step's chunks.
    `budget_tokens` are the keys that each of its query rows may attend to, rounded up to whole
    pieces; a budget that covers the sequence is dense attention. `rows` is a range of cumulative
    shares, (0, 1) the whole head: of its lists' pieces in prefill, of its one list in decode.
    `pattern` says which pieces the budget may be spent on (`executor.kernels.patterns`); by default
    those that hold the most attention of a few of a block's rows (SampleAttention).
    """

    head: int
    group: int
    budget_tokens: int
    rows: tuple[float, float] = (0.0, 1.0)
    sequence: int = 0
    pattern: Pattern = SAMPLED


class LayerShares(tuple[HeadShare, ...]):
    """Shares of a layer, made once and known by identity: to hash every share of them takes as long
    as half a decode."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def check_shares(shares: Sequence[HeadShare], chunks: Sequence[Chunk]) -> None:
    """Raises AttentionError for a share that cannot be, or two that compute the same rows."""
    seen: dict[tuple[int, int], list[tuple[tuple[float, float], int]]] = {}
    for number, share in enumerate(shares):
        _check_share(share, number, len(chunks))
        others = seen.setdefault((share.sequence, share.head), [])
        decodes = chunks[share.sequence].decodes
        for rows, other in others:
            overlap = min(rows[1], share.rows[1]) - max(rows[0], share.rows[0]) > SHARE_ROUNDING
            if decodes or overlap:
                raise AttentionError(
                    f"shares[{number}]: head {share.head} of sequence {share.sequence} is also "
                    f"shares[{other}]'s: ranges of rows must not overlap, and a decoding head has "
                    "one part on a device"
                )
        others.append((share.rows, number))


def _check_share(share: HeadShare, number: int, sequences: int) -> None:
    where = f"shares[{number}]"
    for name, index in (("head", share.head), ("group", share.group)):
        if not whole(index) or index < 0:
            raise AttentionError(f"{where}.{name}: {index!r} must be a whole number, at least 0")
    if not whole(share.sequence) or not 0 <= share.sequence < sequences:
        raise AttentionError(f"{where}.sequence: {share.sequence!r} is not in 0..{sequences - 1}")
    if not whole(share.budget_tokens) or share.budget_tokens < 1:
        raise AttentionError(
            f"{where}.budget_tokens: {share.budget_tokens!r} must be a whole number, at least 1"
        )
    if not _is_range(share.rows):
        raise AttentionError(
            f"{where}.rows: {share.rows} must be two cumulative shares, 0 <= first < last <= 1"
        )
    _check_pattern(share.pattern, where)


def _is_range(rows: object) -> bool:
    match rows:
        case (float() | int() as first, float() | int() as last):
            return 0 <= first < last <= 1 + SHARE_ROUNDING
    return False


def _check_pattern(pattern: Pattern, where: str) -> None:
    least = {"scored_rows": 1, "row_step": 1, "rows": 1, "local_pieces": 1, "stride": 1}
    if not isinstance(pattern, Pattern):
        raise AttentionError(f"{where}.pattern: {pattern!r} is no pattern of kernels.patterns")
    for name, value in vars(pattern).items():
        if not whole(value) or value < least.get(name, 0):
            raise AttentionError(
                f"{where}.pattern.{name}: {value!r} must be a whole number, at least "
                f"{least.get(name, 0)}"
            )


def check_block_sizes(block_tokens: int, piece_tokens: int) -> None:
    """Raises AttentionError for sizes that are none, or a piece that does not divide the block."""
    for name, size in (("block_tokens", block_tokens), ("piece_tokens", piece_tokens)):
        if not whole(size) or size < 1:
            raise AttentionError(f"{name}: {size!r} must be a whole number, at least 1")
    fault = sizes_fault(block_tokens, piece_tokens)
    if fault is not None:
        raise AttentionError(fault)


def check_patterns(shares: Sequence[HeadShare], block_tokens: int, piece_tokens: int) -> None:
    """Raises AttentionError for a strided pattern whose query and key blocks would differ."""
    for number, share in enumerate(shares):
        if not by_budget(share.pattern) and block_tokens != piece_tokens:
            raise AttentionError(
                f"shares[{number}].pattern: strided blocks are square, but pieces of "
                f"{piece_tokens} tokens do not fill blocks of {block_tokens}"
            )


def whole(value: object) -> bool:
    """Whether a value is an integer, numpy's included, and no boolean."""
    return hasattr(value, "__index__") and not isinstance(value, bool)
