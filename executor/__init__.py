"""What is done: a plan carried out by block-sparse attention, each head within its own budget.

One device's heads in one step of one layer: `prepare` lays the step out once for its shares and
lengths, `attend` computes it as often as one likes, on a CPU or a GPU.

>>> import torch
>>> from executor import Cache, Chunk, HeadShare, attend, prepare

Two query heads of one KV group read a prompt of 256 tokens: one all of it, one 64 keys a row.

>>> _ = torch.manual_seed(0)
>>> q, keys, values = torch.randn(2, 256, 64), torch.randn(1, 256, 64), torch.randn(1, 256, 64)
>>> cache = Cache(keys, values, starts=torch.tensor([0], dtype=torch.int32))
>>> shares = [HeadShare(head=0, group=0, budget_tokens=256), HeadShare(1, 0, budget_tokens=64)]
>>> step = prepare(shares, [Chunk(0, new_tokens=256)], block_tokens=64, piece_tokens=16)
>>> result = attend(q, cache, step)
>>> result.out.shape, result.lse.shape
(torch.Size([2, 256, 64]), torch.Size([2, 256]))
>>> result.counts.tiles  # of a block and a piece: 4 + 8 + 12 + 16 of one head, 4 x 4 of the other
56

A whole model of transformers: `attach` makes its layers attend by a policy, `BudgetPolicy` is one
of token budgets [layers, query_heads], such as a plan's.

    trace = attach(model, BudgetPolicy.of_plan(plan))
    model.generate(..., past_key_values=GrowingCache(model.config))
    trace.share  # of dense attention's work

`GrowingCache` (executor.engines.transformers.cache) spares decodes what any other cache makes them
do at every token: copying all keys, and computing the bounds of all pieces.

Nothing here is loaded before it is asked for: importing this alone needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from executor.attention.block_sparse import attend
    from executor.attention.shares import HeadShare
    from executor.attention.step import prepare
    from executor.engines.transformers.attach import attach
    from executor.inference.budget_policy import BudgetPolicy
    from executor.kernels.batch import Cache, Chunk

__all__ = ["BudgetPolicy", "Cache", "Chunk", "HeadShare", "attach", "attend", "prepare"]

_HOMES = {
    "BudgetPolicy": "executor.inference.budget_policy",
    "Cache": "executor.kernels.batch",
    "Chunk": "executor.kernels.batch",
    "HeadShare": "executor.attention.shares",
    "attach": "executor.engines.transformers.attach",
    "attend": "executor.attention.block_sparse",
    "prepare": "executor.attention.step",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
