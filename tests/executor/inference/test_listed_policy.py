"""Lists of a prompt, by which runs are compared."""

import torch

from executor.inference.budget_policy import BudgetPolicy
from executor.inference.listed_policy import ListedPolicy
from executor.inference.policy import LayerCall

TOKENS = 300


def lists(q: torch.Tensor, keys: torch.Tensor) -> dict[tuple[int, int, int], int]:
    """Of two heads with budgets of 128 tokens and of all, in blocks of 64 and pieces of 16."""
    policy = ListedPolicy(BudgetPolicy([[128, TOKENS]], piece_tokens=16))
    policy.attend(LayerCall(0, q, keys, keys, 0.25))
    return policy.lists


def test_lists_that_leave_something_out_are_kept_and_change_with_what_is_chosen() -> None:
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(2, TOKENS, 16, generator=generator)
    keys = torch.randn(1, TOKENS, 16, generator=generator)
    found = lists(q, keys)
    # The budget covers the first two query blocks, and the other head's all.
    assert found.keys() == {(0, 0, 2), (0, 0, 3), (0, 0, 4)}
    assert lists(q, keys) == found
    changed = q.clone()
    changed[0, 192:256] *= -1
    other = lists(changed, keys)
    assert {place for place in found if other[place] != found[place]} == {(0, 0, 3)}
