"""Attention of a sampled step, timed layer by layer where it is computed, and one layer watched.

On a CPU by the clocks of the thread that computes: the time it had a core, as `hplb executor` takes
it, and wall time. On a GPU by events on its stream, which nothing waits for: they are read by
another thread once they are over. No GPU has run that. Of the watched layer, when its time has been
taken, the share of attention mass is estimated that its lists held.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from executor.attention.step import PreparedStep
from executor.inference.slot_steps import BatchSteps
from executor.inference.watched_rows import HeldRows, watched_rows
from executor.kernels.batch import Cache
from executor.kernels.recovery import head_recovery, recovery
from executor.weights.execution_map import ExecutionMap

WATCHED_ROWS = 8
"""Of a prompt's head, evenly spread, in the watched layer: as many heads and layers are watched in
turn, a few do."""
Event: Any = torch.cuda.Event
Mark = Any
"""Of a CPU (thread's seconds, seconds on the wall), of a GPU an event."""


@dataclass(frozen=True)
class Took:
    """Seconds of a layer's attention in a phase of the batch: `busy_s` as executors report them."""

    layer: int
    phase: int
    busy_s: float
    wall_s: float


class SampledStep:
    """One step in `every`: its `number` among the rank's, alike on all ranks, the map and what of
    the batch it computes with the slots of `ranks`, with the KV groups [layers] that it has shares
    of. `watched` is a layer.

    Between two calls of `begin` and `end` one layer computes one phase.
    """

    def __init__(
        self,
        number: int,
        made: ExecutionMap,
        ranks: Sequence[int],
        batch: BatchSteps,
        groups: list[int],
        device: torch.device,
        watched: int,
    ) -> None:
        self.number, self.map, self.batch, self.groups = number, made, batch, groups
        self.watched, self._ranks = watched, ranks
        self._on_cpu = device.type == "cpu"
        self._marks: list[tuple[int, int, Mark, Mark]] = []
        self._held: list[tuple[int, PreparedStep, torch.Tensor]] = []
        self._last: Mark = None

    def begin(self) -> Mark:
        """Before a layer computes."""
        if self._on_cpu:
            return time.thread_time(), time.perf_counter()
        event = Event(enable_timing=True)
        event.record()
        return event

    def end(self, layer: int, phase: int, begun: Mark) -> None:
        """After it has, or has been queued to."""
        self._last = self.begin()
        self._marks.append((layer, phase, begun, self._last))

    def watch(
        self, phase: int, q: torch.Tensor, cache: Cache, step: PreparedStep, lse: torch.Tensor
    ) -> None:
        """After the watched layer has computed q [heads, tokens, head_dim], by lse alike."""
        if step.prefill is not None:
            held = recovery(q, cache, step.prefill, lse, WATCHED_ROWS)
            self._held.append((phase, step, held))
        if step.decode is not None:
            held = head_recovery(q, cache, step.decode, step.context_tokens, lse)
            self._held.append((phase, step, held))
        self._last = self.begin()

    @property
    def over(self) -> bool:
        """Whether all that was queued has been computed."""
        return not isinstance(self._last, Event) or bool(self._last.query())

    def held(self) -> dict[int, HeldRows]:
        """What the watched layer's lists held of the rows of each phase, once the step is over."""
        heads = self.map.layout.heads(self.watched, self._ranks)
        phases = self.batch.phases
        return {
            phase: watched_rows(step, phases[phase].context, heads, held.double().cpu().numpy())
            for phase, step, held in self._held
        }

    def took(self) -> list[Took]:
        """What every layer took, once the step is over."""
        return [
            Took(layer, phase, *_between(begun, ended))
            for layer, phase, begun, ended in self._marks
        ]


def _between(begun: Mark, ended: Mark) -> tuple[float, float]:
    if isinstance(begun, tuple):
        return ended[0] - begun[0], ended[1] - begun[1]
    seconds = begun.elapsed_time(ended) / 1000
    return seconds, seconds
