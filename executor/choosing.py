"""How a plan's heads choose their blocks: the profile's selection as the kernels' pattern."""

from executor.errors import ShardError
from executor.kernels.patterns import POOLED, Pattern, Sampled, SinkLocal, Strided, VerticalSlash
from profiles import selection
from profiles.architecture import Architecture
from profiles.selection import Selection


def pattern(
    chosen: Selection, architecture: Architecture, kv_head: int, piece_tokens: int
) -> Pattern:
    """The pattern of the query heads of `kv_head` in pieces of `piece_tokens`.

    A head that attends to all has a budget that covers the context, whatever its pattern. Raises
    ShardError for strided blocks of another size: they would not fall on whole blocks.
    """
    match chosen:
        case selection.Pooled():
            return POOLED
        case selection.VerticalSlash():
            return VerticalSlash()
        case selection.Sampled():
            return Sampled(chosen.rows)
        case selection.SinkLocal():
            return SinkLocal(-(-chosen.sink_tokens // piece_tokens))
        case selection.Strided():
            if chosen.block_tokens != piece_tokens:
                raise ShardError(
                    f"selection: a strided pattern of {chosen.block_tokens}-token blocks cannot "
                    f"run in pieces of {piece_tokens}: plan with its own block size"
                )
            if chosen.dense(kv_head, architecture):
                return POOLED
            offset = chosen.offset(kv_head, architecture)
            return Strided(chosen.local_blocks, chosen.vert_stride, offset)
