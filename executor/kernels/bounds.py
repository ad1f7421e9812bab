"""What stands for a piece when a decode chooses: the least and greatest key, in every dimension.

Quest (arXiv 2406.10774, section 3.2), where a piece is a page. They bound the score of each of the
piece's tokens from above, so that a single key counts for what it is; in a mean the others of its
piece dilute it.
"""

import torch

from executor.kernels.batch import Cache
from executor.kernels.implementation import implementation


def page_bounds(
    cache: Cache,
    context_tokens: torch.Tensor,
    piece_tokens: int | None = None,
    *,
    use_triton: bool | None = None,
) -> torch.Tensor:
    """Least and greatest keys of every piece that a sequence fills, [rows, groups, 2, head_dim].

    A page has n = page_tokens / piece_tokens pieces (one by default): piece i of page p is row
    p n + i. Bounds are like the cache, hence exact; a dimension with a NaN has NaN for both.
    context_tokens int32 [sequences], on the paged cache's device: 0 for a sequence that is not
    there. What lies behind a context may be anything and is left out; pieces of nobody have 0. By
    itself Triton is used where the cache is on a GPU: shapes are static and nothing is copied.
    """
    assert cache.pages is not None
    pages, groups, size, head_dim = cache.keys.shape
    rows = pages * (size // (piece_tokens or size))
    bounds = cache.keys.new_zeros(rows, groups, 2, head_dim)
    by_triton = cache.keys.is_cuda if use_triton is None else use_triton
    implementation(by_triton).fill_page_bounds(cache, context_tokens, bounds, newest=False)
    return bounds


def refresh_page_bounds(
    cache: Cache,
    bounds: torch.Tensor,
    context_tokens: torch.Tensor,
    *,
    use_triton: bool | None = None,
) -> None:
    """Recompute in place the bounds of every piece of the pages in `cache.pages`.

    A table of the pages that were written to is enough, and context_tokens int32 [sequences] then
    counts those pages' tokens alone. bounds as `page_bounds` made them.
    """
    by_triton = cache.keys.is_cuda if use_triton is None else use_triton
    implementation(by_triton).fill_page_bounds(cache, context_tokens, bounds, newest=False)


def update_page_bounds(
    cache: Cache,
    bounds: torch.Tensor,
    context_tokens: torch.Tensor,
    *,
    use_triton: bool | None = None,
) -> None:
    """Recompute in place the bounds of the piece that holds each sequence's newest token.

    From all its tokens, since the page may have been another sequence's. bounds as `page_bounds`
    made them; context_tokens int32 [sequences], the new token included: 0 for a sequence that is
    not there.
    """
    by_triton = cache.keys.is_cuda if use_triton is None else use_triton
    implementation(by_triton).fill_page_bounds(cache, context_tokens, bounds, newest=True)
