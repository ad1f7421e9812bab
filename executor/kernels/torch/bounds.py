"""Bounds of pieces through torch."""

import torch

from executor.kernels.batch import Cache


def fill_page_bounds(
    cache: Cache, tokens: torch.Tensor, bounds: torch.Tensor, *, newest: bool
) -> None:
    """Fill bounds [rows, groups, 2, head_dim] for each sequence's pieces, or its newest alone."""
    assert cache.pages is not None
    per_page = max(1, len(bounds) // max(1, len(cache.keys)))
    size = cache.page_tokens // per_page
    if newest:
        for number, held in enumerate(tokens.tolist()):
            if held:
                piece = (held - 1) // size
                row = int(cache.pages[number, piece // per_page]) * per_page + piece % per_page
                first = piece % per_page * size
                real = cache.keys[row // per_page, :, first : first + held - piece * size]
                # Faster than aminmax, across tokens.
                torch.amin(real, dim=1, out=bounds[row, :, 0])
                torch.amax(real, dim=1, out=bounds[row, :, 1])
        return
    first = torch.arange(cache.pages.shape[1] * per_page, device=tokens.device) * size
    sequence, piece = (first < tokens[:, None]).nonzero(as_tuple=True)
    page, within = cache.pages[sequence, piece // per_page].long(), piece % per_page
    real = tokens[sequence] - piece * size
    behind = (torch.arange(size, device=page.device) >= real[:, None])[:, None, :, None]
    # [pages, pieces, groups, tokens, head_dim]
    keys = torch.unflatten(cache.keys, 2, (per_page, size)).transpose(1, 2)[page, within]
    # The first token is always real, and once more it changes neither bound.
    least_greatest = torch.where(behind, keys[:, :, :1], keys).aminmax(dim=2)
    bounds[page * per_page + within] = torch.stack(least_greatest, dim=2)
