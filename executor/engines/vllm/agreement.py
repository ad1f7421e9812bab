"""All ranks begin with another map at the same step, or none does.

Where a head's rows are cut follows from budgets: ranks that switch apart would compute rows twice
or never, and no error would tell. So each says, at the same steps, which map it is ready for, and
what all of them see decides alike on all. A rank that has not heard yet keeps the others waiting.
"""

import hashlib

import torch
import torch.distributed as dist


class Agreement:
    """Of `ranks` that a gloo group joins; a single one needs none."""

    def __init__(self, ranks: int, group: dist.ProcessGroup | None) -> None:
        self._ranks, self._group = ranks, group

    def on(self, ready_for: str | None) -> bool:
        """Whether every rank is ready for the same, which is not None; asked by all at once."""
        token = 0 if ready_for is None else _token(ready_for)
        if self._ranks == 1:
            return token != 0
        mine = torch.tensor([token])
        found = [torch.empty_like(mine) for _ in range(self._ranks)]
        dist.all_gather(found, mine, group=self._group)
        return token != 0 and all(int(each) == token for each in found)


def _token(name: str) -> int:
    """Eight bytes of a name's SHA-256, never 0."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True) or 1
