"""The executor's selector, joined by an entry point: `profiles` imports no executor."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Protocol

import torch

from profiles.selection import Selection

GROUP = "hplb.selectors"
Lists = Callable[[int], torch.Tensor]
"""From a budget in pieces to the pieces chosen, bool [heads, query blocks, key pieces]."""


class Selector(Protocol):
    """Which key pieces an executor gives to query blocks."""

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        query_blocks: torch.Tensor,
        block_tokens: int,
        piece_tokens: int,
        selection: Selection,
    ) -> Lists:
        """Score once, then lists for any budget.

        q [heads, tokens, head_dim], k [groups, tokens, head_dim]; logits are q k / sqrt(head_dim).
        `query_blocks` int64: those whose lists are wanted.
        """


def installed_selector() -> Selector | None:
    """The executor's selector, or None where no executor is installed."""
    for entry_point in entry_points(group=GROUP):
        selector: Selector = entry_point.load()
        return selector
    return None
