"""A shard's parts as rows: of prompts in prefill, of (sequence, key piece) pairs in decode.

A decoding head is cut between key pieces of its list, sequence after sequence (the solver's
`solver.rows`): whole sequences on either side of a cut, and at most one sequence's list
between two devices.
"""

import numpy as np

from executor.kernels.batch import Chunk
from executor.shard import HeadPart, LayerShard
from executor.shares import HeadShare, row_boundary
from profiles.cost.work import Workload, budget_pieces


def sequence_chunks(workload: Workload) -> tuple[Chunk, ...]:
    """The chunks of a step: whole prompts, or the newest token of every sequence."""
    cached = workload.context_tokens - workload.new_tokens
    decodes = workload.phase == "decode"
    return (Chunk(cached, workload.new_tokens, decodes),) * workload.batch_size


def shard_shares(shard: LayerShard) -> list[HeadShare]:
    """A shard's parts, sequence by sequence; part i is head i of its q."""
    return [
        HeadShare(
            head=index,
            group=shard.architecture.kv_head(part.head),
            budget_tokens=part.budget_tokens,
            rows=rows,
            sequence=sequence,
            pattern=part.pattern,
        )
        for sequence in range(shard.workload.batch_size)
        for index, part in enumerate(shard.heads)
        for rows in sequence_rows(part, shard.workload, sequence)
    ]


def sequence_rows(
    part: HeadPart, workload: Workload, sequence: int
) -> tuple[tuple[float, float], ...]:
    """The part's range of a sequence, as `HeadShare.rows` has it; none where it has nothing there.

    A prompt is cut alike in every sequence.
    """
    if workload.phase == "prefill":
        return (part.rows,)
    pieces, first, last = _decoded(part, workload)
    begin = sequence * pieces
    low, high = max(first - begin, 0), min(last - begin, pieces)
    return ((low / pieces, high / pieces),) if low < high else ()


def token_spans(part: HeadPart, workload: Workload) -> list[slice]:
    """The new tokens that a part computes anything of, as ranges of q's tokens."""
    if workload.phase == "decode":
        pieces, first, last = _decoded(part, workload)
        return [slice(first // pieces, -(-last // pieces))] if first < last else []
    budget = int(budget_pieces(np.array(part.budget_tokens), workload))
    rows, own = workload.context_blocks, workload.block_pieces
    first, last = (row_boundary(edge, budget, rows, block_pieces=own) for edge in part.rows)
    if first == last:
        return []
    size, tokens = workload.block_tokens, workload.context_tokens
    begin, end = first * size, min(last * size, tokens)
    return [slice(s * tokens + begin, s * tokens + end) for s in range(workload.batch_size)]


def _decoded(part: HeadPart, workload: Workload) -> tuple[int, int, int]:
    """A list's key pieces, and the part's first and last of all sequences' one after another."""
    pieces = int(budget_pieces(np.array(part.budget_tokens), workload))
    units = pieces * workload.batch_size
    first, last = (row_boundary(edge, 1, units) for edge in part.rows)
    return pieces, first, last
