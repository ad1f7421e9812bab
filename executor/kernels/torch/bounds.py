"""Page bounds through torch."""

import torch

from executor.kernels.batch import Cache


def fill_page_bounds(
    cache: Cache, tokens: torch.Tensor, bounds: torch.Tensor, *, newest: bool
) -> None:
    """Fill bounds [pages, groups, 2, head_dim] for each sequence's pages, or its newest alone."""
    assert cache.pages is not None
    size = cache.keys.shape[2]
    if newest:
        sequence = tokens.nonzero().flatten()
        place = (tokens[sequence] - 1) // size
    else:
        first = torch.arange(cache.pages.shape[1], device=tokens.device) * size
        sequence, place = (first < tokens[:, None]).nonzero(as_tuple=True)
    page = cache.pages[sequence, place].long()
    real = tokens[sequence] - place * size
    behind = (torch.arange(size, device=page.device) >= real[:, None])[:, None, :, None]
    keys = cache.keys[page]
    # The first token is always real, and once more it changes neither bound.
    bounds[page] = torch.stack(torch.where(behind, keys[:, :, :1], keys).aminmax(dim=2), dim=2)
