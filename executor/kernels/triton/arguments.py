"""What kernels are given, under one name where it belongs together.

Numbers that change from step to step stay outside of these groups: within them Triton compiles anew
for every number that is 1 or divisible by 16 or neither.
"""

from typing import Any, NamedTuple

import torch

from executor.kernels.batch import Cache
from executor.kernels.decode_layout import DecodeLayout, DecodeLists
from executor.kernels.layout import Layout


class Rows(NamedTuple):
    """q or out [heads, tokens, head_dim] and its strides."""

    ptr: Any
    head: Any
    token: Any
    dim: Any


class Pool(NamedTuple):
    """Keys or values and their strides: [pages, groups, page_tokens, head_dim], or without pages
    [groups, tokens, head_dim] and a stride of page 0. `source` is a pointer or a descriptor."""

    source: Any
    page: Any
    group: Any
    token: Any
    dim: Any


class Lists(NamedTuple):
    """The tensors of a Layout by their names there; `indices` int32 [stored]."""

    entries: Any
    entry: Any
    query_block: Any
    length: Any
    start: Any
    indices: Any


class Entries(NamedTuple):
    """The tensors of a DecodeLayout and its DecodeLists by their names there."""

    entries: Any
    heads: Any
    start: Any
    budget: Any
    part: Any
    first: Any
    count: Any
    indices: Any


class Partial(NamedTuple):
    """Results of parts of lists: out fp32 [slots, rows, head_dim], lse fp32 [slots, rows]."""

    out: Any
    lse: Any


def rows_of(x: torch.Tensor) -> Rows:
    """q or out for a kernel."""
    return Rows(x, *x.stride())


def pool_of(x: torch.Tensor, source: Any = None) -> Pool:
    """Keys or values for a kernel, which reads them by a descriptor where `source` is one."""
    return Pool(x if source is None else source, *((0,) * (4 - x.dim())), *x.stride())


def table_of(cache: Cache) -> torch.Tensor:
    """Where sequences' keys are: int32 [sequences, pages], or first tokens [sequences, 1]."""
    if cache.pages is not None:
        return cache.pages
    assert cache.starts is not None
    return cache.starts[:, None]


def lists_of(layout: Layout, indices: torch.Tensor) -> Lists:
    """All lists for a kernel, which is told where to begin: whole tables are aligned alike."""
    return Lists(
        layout.entries, layout.entry, layout.query_block, layout.length, layout.start, indices
    )


def entries_of(layout: DecodeLayout, lists: DecodeLists) -> Entries:
    """All entries for a kernel, which is told where to begin."""
    return Entries(
        layout.entries,
        layout.heads,
        layout.start,
        layout.budget,
        layout.part,
        lists.first,
        lists.count,
        lists.indices,
    )


def partial_of(slots: int, rows: int, q: torch.Tensor) -> Partial:
    """Room for as many parts of lists."""
    return Partial(
        q.new_empty(slots, rows, q.shape[2], dtype=torch.float32),
        q.new_empty(slots, rows, dtype=torch.float32),
    )
