"""What stands for a page when a decode chooses: the least and the greatest key, in every dimension.

Quest (arXiv 2406.10774, section 3.2). They bound the score of each of the page's tokens from above,
so that a single key counts for what it is; in a mean the others of its page dilute it.
"""

import torch

from executor.kernels.batch import Cache


def page_bounds(
    cache: Cache, context_tokens: torch.Tensor, *, use_triton: bool | None = None
) -> torch.Tensor:
    """Least and greatest keys of every page that a sequence fills, [pages, groups, 2, head_dim].

    They are like the cache, hence exact; a dimension with a NaN has NaN for both. context_tokens
    int32 [sequences], on the paged cache's device: 0 for a sequence that is not there. What lies
    behind a context may be anything and is left out; pages of nobody have 0. By itself Triton is
    used where the cache is on a GPU: shapes are static there and nothing is copied.
    """
    assert cache.pages is not None
    pages, groups, size, head_dim = cache.keys.shape
    bounds = cache.keys.new_zeros(pages, groups, 2, head_dim)
    if cache.keys.is_cuda if use_triton is None else use_triton:
        from executor.kernels import bounds_triton

        bounds_triton.fill_page_bounds(cache, context_tokens, bounds, newest=False)
    else:
        first = torch.arange(cache.pages.shape[1], device=context_tokens.device) * size
        sequence, place = (first < context_tokens[:, None]).nonzero(as_tuple=True)
        _bound_pages(cache, bounds, sequence, place, context_tokens)
    return bounds


def update_page_bounds(
    cache: Cache,
    bounds: torch.Tensor,
    context_tokens: torch.Tensor,
    *,
    use_triton: bool | None = None,
) -> None:
    """Recompute in place the bounds of the page that holds each sequence's newest token.

    From all its tokens, since the page may have been another sequence's. bounds [pages, groups, 2,
    head_dim]; context_tokens int32 [sequences], the new token included: 0 for a sequence that is
    not there.
    """
    assert cache.pages is not None
    if cache.keys.is_cuda if use_triton is None else use_triton:
        from executor.kernels import bounds_triton

        bounds_triton.fill_page_bounds(cache, context_tokens, bounds, newest=True)
        return
    there = context_tokens.nonzero().flatten()
    newest = (context_tokens[there] - 1) // cache.keys.shape[2]
    _bound_pages(cache, bounds, there, newest, context_tokens)


def _bound_pages(
    cache: Cache,
    bounds: torch.Tensor,
    sequence: torch.Tensor,
    place: torch.Tensor,
    tokens: torch.Tensor,
) -> None:
    """Fill bounds [pages, groups, 2, head_dim] for block `place` of `sequence`, both [blocks]."""
    assert cache.pages is not None
    size = cache.keys.shape[2]
    page = cache.pages[sequence, place].long()
    real = tokens[sequence] - place * size
    behind = (torch.arange(size, device=page.device) >= real[:, None])[:, None, :, None]
    keys = cache.keys[page]
    # The first token is always real, and once more it changes neither bound.
    bounds[page] = torch.stack(torch.where(behind, keys[:, :, :1], keys).aminmax(dim=2), dim=2)
