"""What the CPU back end is tried on: threads, short steps, no compiler, caches to be misread."""

from contextlib import contextmanager
from unittest import mock

import torch

from executor.kernels.batch import Cache
from executor.kernels.torch import compiled, spans

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
DTYPES = list(TOLERANCE)
UNKNOWN_PAGE = 10**6


@contextmanager
def threads(count):
    """`count` for PyTorch, which must find them again."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
        assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)


def shorten_steps(monkeypatch):
    """Strips and batches so short that small inputs make many."""
    monkeypatch.setattr(spans, "STRIP_TOKENS", 40)
    monkeypatch.setattr(spans, "GATHERED_BYTES", 2**13)


@contextmanager
def by_products():
    """As where there is no compiler."""
    with mock.patch.object(compiled, "library", return_value=None):
        yield


def without_strays(cache, chunks, block):
    """`cache` with page numbers that cannot be read wherever no block is."""
    if cache.pages is None:
        return cache
    pages = cache.pages.clone()
    for sequence, chunk in enumerate(chunks):
        pages[sequence, -(-chunk.total_tokens // block) :] = UNKNOWN_PAGE
    return Cache(cache.keys, cache.values, pages=pages)


def strided(x):
    """`x` with other strides: dimensions stored in reverse, with gaps."""
    room = torch.full([2 * size for size in reversed(x.shape)], torch.nan, dtype=x.dtype)
    view = room.permute(*reversed(range(x.dim())))[tuple(slice(0, None, 2) for _ in x.shape)]
    return view.copy_(x)
