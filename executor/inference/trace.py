"""What a model computed under a policy, summed over its calls."""

from dataclasses import dataclass, field

import torch

from executor.inference.policy import Attended


@dataclass(eq=False)
class Trace:
    """Sums over the calls of a model of `layers` layers and `query_heads` heads.

    `tiles` were computed where the model's own attention has `dense_tiles`; `calls` are counted
    one a layer and sequence. Grows with every call: one thread at a time.
    """

    layers: int
    query_heads: int
    calls: int = 0
    tiles: int = 0
    dense_tiles: int = 0
    _recovery: torch.Tensor = field(init=False, repr=False)
    _watched: torch.Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._recovery = torch.zeros(self.layers, self.query_heads, dtype=torch.float64)
        self._watched = torch.zeros(self.layers, self.query_heads, dtype=torch.float64)

    @property
    def share(self) -> float:
        """Computed tiles over dense ones; NaN before the first call."""
        return self.tiles / self.dense_tiles if self.dense_tiles else float("nan")

    def recovery(self) -> torch.Tensor:
        """Mean recovery of the calls watched, float64 [layers, query_heads]; NaN where none was."""
        return self._recovery / self._watched

    def add(self, layer: int, attended: Attended) -> None:
        """Count one call of `layer`."""
        self.calls += 1
        self.tiles += attended.tiles
        self.dense_tiles += attended.dense_tiles
        if attended.recovery is not None:
            found = attended.recovery.to("cpu", torch.float64)
            self._recovery[layer] += found.nan_to_num(0.0)
            self._watched[layer] += ~found.isnan()
