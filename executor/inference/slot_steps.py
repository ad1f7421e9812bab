"""An engine's batch as steps of the slots of a rank: all layers', prompts and decodes apart.

What `slot_policy` computes call by call, for a whole batch over a paged cache. All ranks lay out
the same batch, so that the rows which one leaves out are another's.
"""

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from executor.attention.shares import HeadShare
from executor.attention.step import BatchedSteps, Here, PreparedStep
from executor.inference.slot_policy import slot_shares
from executor.kernels.batch import Chunk
from executor.kernels.layout import send
from executor.weights.execution_map import ExecutionMap

Numbers = NDArray[np.int64]
Index = slice | list[int]
"""Some of a batch's sequences or tokens: a slice wherever they follow one another."""
Steps = tuple[PreparedStep | None, ...]
"""Of every layer, None where the rank computes nothing."""
LEAST_ROOM = 2048
"""Tokens that the smallest decoding step has room for; larger ones by powers of two."""
KEPT_BATCHES = 16
"""Decoding steps kept: for how many sequences, and which of divided heads are here."""


@dataclass(frozen=True, eq=False)
class Phase:
    """A batch's decodes, or its prompts: which `sequences` and `tokens` of q they are, how many
    tokens each sequence has had before (`cached`) and has (`context`), and the layers' steps."""

    sequences: Index
    tokens: Index
    cached: Numbers
    context: Numbers
    steps: Steps


@dataclass(frozen=True, eq=False)
class BatchSteps:
    """A batch's phases; over all layers `tiles` of a block and a piece (pieces, for a decode) are
    computed, where dense attention of the same rows has `dense_tiles`."""

    phases: tuple[Phase, ...]
    tiles: int
    dense_tiles: int


@dataclass(frozen=True, eq=False)
class PagedPhase:
    """A phase over a paged cache: `pages` int32 [sequences, pages], `context` int32 [sequences].

    `touched` and `filled`, alike, are the pages that new tokens are in, and how many tokens those
    hold in all: the bounds of their pieces are to be made anew.
    """

    phase: Phase
    pages: torch.Tensor
    context: torch.Tensor
    touched: torch.Tensor
    filled: torch.Tensor


class SlotSteps:
    """Steps of any batch in some `layers`, for the slots of some ranks of a map.

    Sequences have up to `most_tokens`. `groups` [layers]: how many KV groups there are shares of.

    A decoding step follows from how many sequences decode, not from their lengths, so that an
    engine's next step is mostly the last one again. Of a head that several ranks hold each decodes
    whole sequences, as `attention.query_rows.decodes` divides them. Prompts' rows are cut by work
    within every chunk, between query blocks on their absolute positions.
    """

    def __init__(
        self,
        made: ExecutionMap,
        ranks: Sequence[int],
        most_tokens: int,
        device: torch.device,
        layers: Container[int],
    ) -> None:
        self._most_tokens = most_tokens
        shares = slot_shares(made, ranks)
        asked = [of if number in layers else () for number, of in enumerate(shares)]
        self._steps = BatchedSteps(asked, made.block_tokens, made.piece_tokens, device)
        self.groups = [len({share.group for share in of}) for of in self._steps.layers]
        # Shares of equal rows and budgets are divided alike, the whole ones not at all.
        kinds: dict[tuple[float, ...], int] = {(0.0, 1.0, 1): 0}
        self._kinds = [
            [kinds.setdefault(_divided(share), len(kinds)) for share in layer]
            for layer in self._steps.layers
        ]
        self._divided = np.array(list(kinds), np.float64)
        self._decoded = lru_cache(KEPT_BATCHES)(self._decode_steps)

    def of_batch(self, cached: Sequence[int], context: Sequence[int]) -> BatchSteps:
        """The steps of sequences that have `context` tokens, all but `cached` of them new.

        A single new token decodes, whatever stands before it; a sequence without any is left out.
        """
        had, has = np.array(cached, np.int64), np.array(context, np.int64)
        new = has - had
        starts = np.concatenate([[0], new.cumsum()])
        phases, tiles, dense = [], 0, 0
        (decoding,), (prompts,) = (new == 1).nonzero(), (new > 1).nonzero()
        if len(decoding):
            steps, listed, heads, sequence = self._decodes(has[decoding])
            pieces = -(-has[decoding] // self._steps.piece_tokens)[sequence]
            tiles += int((heads * np.minimum(listed, pieces)).sum())
            dense += int((heads * pieces).sum())
            tokens = _index(starts[decoding])
            phases.append(Phase(_index(decoding), tokens, had[decoding], has[decoding], steps))
        if len(prompts):
            chunks = list(map(Chunk, had[prompts].tolist(), new[prompts].tolist()))
            steps, causal = self._steps.prompts(chunks)
            tiles += sum(step.counts.tiles for step in steps if step is not None)
            dense += causal
            tokens = _index((new > 1).repeat(new).nonzero()[0])
            phases.append(Phase(_index(prompts), tokens, had[prompts], has[prompts], steps))
        return BatchSteps(tuple(phases), tiles, dense)

    def _decodes(self, lengths: Numbers) -> tuple[Steps, Numbers, Numbers, Numbers]:
        """Of sequences that have so many tokens, as `_decode_steps`."""
        room = LEAST_ROOM
        while room < lengths.max():
            room *= 2
        first, last, budget = self._divided.T[..., None]
        work = np.minimum(budget, lengths)
        middle = (work.cumsum(1) - work / 2) / work.sum(1, keepdims=True)
        # The middle of a head that is whole here lies in it, too.
        here = (first <= middle) & (middle < last)
        room = min(room, max(self._most_tokens, int(lengths.max())))
        return self._decoded(len(lengths), here.tobytes(), room)

    def _decode_steps(
        self, sequences: int, here: bytes, room: int
    ) -> tuple[Steps, Numbers, Numbers, Numbers]:
        """The steps, and of all layers' lists their longest length in pieces, how many heads read
        lists that long, and whose they are."""
        mine = np.frombuffer(here, np.bool_).reshape(-1, sequences).T.tolist()
        layers: list[list[Here]] = [
            [tuple(each[kind] for kind in kinds) for each in mine] for kinds in self._kinds
        ]
        steps = self._steps.decodes(layers, room)
        readers: Counter[tuple[int, int]] = Counter()
        for step in steps:
            if step is not None and step.decode is not None:
                for entry in step.decode.lists:
                    readers[entry.budget_pieces, entry.sequence] += len(entry.heads)
        listed, sequence = np.array(list(readers), np.int64).reshape(-1, 2).T
        return steps, listed, np.array(list(readers.values()), np.int64), sequence


def paged(phase: Phase, table: torch.Tensor, context: torch.Tensor, page_tokens: int) -> PagedPhase:
    """A phase over the batch's `table` int32 [sequences, pages] of an engine's cache.

    context int32 [sequences]: the tokens of every sequence of the batch, on the table's device.
    """
    pages = table[phase.sequences]
    first = phase.cached // page_tokens
    filled = phase.context - first * page_tokens
    width = int((-(-filled // page_tokens)).max())
    places = np.minimum(first[:, None] + np.arange(width), table.shape[1] - 1)
    touched = pages.gather(1, send(torch.from_numpy(places), table.device))
    sent = send(torch.from_numpy(filled.astype(np.int32)), table.device)
    return PagedPhase(phase, pages, context[phase.sequences], touched, sent)


def _divided(share: HeadShare) -> tuple[float, ...]:
    """What of a batch a share decodes follows from: its rows and its budget."""
    return (*share.rows, share.budget_tokens if share.rows != (0.0, 1.0) else 1)


def _index(numbers: Numbers) -> Index:
    """Numbers that ascend, as a slice where they follow one another."""
    first, last = int(numbers[0]), int(numbers[-1])
    return slice(first, last + 1) if last - first + 1 == len(numbers) else numbers.tolist()
