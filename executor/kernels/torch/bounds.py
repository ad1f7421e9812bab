"""Bounds of pieces through torch."""

import torch

from executor.kernels.batch import Cache

LEAST_PAGES = 8
"""So many whole pages that follow one another are bounded where they lie."""


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
                torch.amin(real, dim=1, out=bounds[row, :, 0])
                torch.amax(real, dim=1, out=bounds[row, :, 1])
        return
    begin = [0] * len(tokens)
    runs = zip(tokens.tolist(), cache.first_pages, strict=True)
    for number, (held, page_at) in enumerate(runs):
        whole = held // cache.page_tokens
        if page_at is not None and whole >= LEAST_PAGES:
            keys = cache.keys[page_at : page_at + whole]
            keys = torch.unflatten(keys, 2, (per_page, size)).transpose(1, 2)
            found = bounds[page_at * per_page : (page_at + whole) * per_page]
            found = torch.unflatten(found, 0, (whole, per_page))
            # aminmax takes ten times as long as both, across tokens.
            torch.amin(keys, dim=3, out=found[..., 0, :])
            torch.amax(keys, dim=3, out=found[..., 1, :])
            begin[number] = whole * cache.page_tokens
    first = torch.arange(cache.pages.shape[1] * per_page, device=tokens.device) * size
    asked = (first < tokens[:, None]) & (first >= torch.tensor(begin)[:, None])
    sequence, piece = asked.nonzero(as_tuple=True)
    page, within = cache.pages[sequence, piece // per_page].long(), piece % per_page
    real = tokens[sequence] - piece * size
    behind = (torch.arange(size, device=page.device) >= real[:, None])[:, None, :, None]
    # [pages, pieces, groups, tokens, head_dim]
    keys = torch.unflatten(cache.keys, 2, (per_page, size)).transpose(1, 2)[page, within]
    # The first token is always real, and once more it changes neither bound.
    keys = torch.where(behind, keys[:, :, :1], keys)
    bounds[page * per_page + within] = torch.stack((keys.amin(2), keys.amax(2)), dim=2)
