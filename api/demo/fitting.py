"""What of a model is run: the longest context, and as many layers, as three minutes hold."""

import os
from dataclasses import dataclass

import numpy as np

from profiles.cost.work import INDEX, Workload, head_work
from profiles.heads import CurvesForm
from profiles.model import ModelProfile
from profiles.time_left import forward_work

WHOLE_S, BESIDE_S, TURN_S = 180.0, 40.0, 0.5
"""Seconds of a demo; of those, what starting and planning take, and handing over a round."""
CORE_FLOPS = 6e10
"""A core's FLOPs a second, in dense attention and in matrix products: 17 us a tile of 64 x 64 rows
and keys of 64 wide, on a core of an AMD EPYC."""
SPARSE_SHARE = 0.6
"""Seconds of a layer at 30 % of the pairs over those of dense attention, on such a core."""
USUAL_CONTEXT = 4096
"""What a profile is run at that was measured at no context."""
LEAST_LAYERS, MOST_LAYERS = 2, 10


@dataclass(frozen=True)
class Effort:
    """Rounds of dense and of sparse generations, and forward passes of the whole model."""

    dense_rounds: int
    sparse_rounds: int
    forwards: int

    def seconds(self, profile: ModelProfile, context: int, layers: int) -> float:
        """About what the demo takes at a context, on so many layers."""
        shape = profile.architecture
        whole = np.full(shape.query_heads, float(context))
        work = head_work(whole, shape, Workload(context))
        rounds = self.dense_rounds + SPARSE_SHARE * self.sparse_rounds
        flops = layers * rounds * float(work[:, INDEX["dense_tile_flops"]].sum())
        # A forward pass is on all cores, a share of a layer on one.
        forward = 2 * shape.layers * shape.hidden_size * forward_work(context, shape.hidden_size)
        flops += self.forwards * forward / (os.cpu_count() or 1)
        turns = self.dense_rounds + self.sparse_rounds
        return BESIDE_S + TURN_S * turns + flops / CORE_FLOPS


def usual_context(profile: ModelProfile, effort: Effort, layers: int | None) -> int:
    """The longest context that was measured and fits; the shortest where none does."""
    if profile.measurement is None or not isinstance(profile.heads, CurvesForm):
        return USUAL_CONTEXT
    measured, wanted = profile.heads.context_tokens, layers or LEAST_LAYERS
    fitting = [c for c in measured if effort.seconds(profile, c, wanted) <= WHOLE_S]
    return max(fitting, default=min(measured))


def layers_to_run(
    profile: ModelProfile, effort: Effort, context: int, layers: int | None
) -> list[int]:
    """Layers spread over the model: as many as asked for, or as fit."""
    every = profile.architecture.layers
    fitting = [
        n for n in range(1, MOST_LAYERS + 1) if effort.seconds(profile, context, n) <= WHOLE_S
    ]
    count = min(layers or max(fitting, default=1), every)
    return [round((i + 0.5) * every / count - 0.5) for i in range(count)]
