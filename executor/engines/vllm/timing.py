"""Attention of a sampled step, timed layer by layer where it is computed.

On a CPU by the clocks of the thread that computes: the time it had a core, as `hplb executor` takes
it, and wall time. On a GPU by events on its stream, which nothing waits for: they are read by
another thread once they are over. No GPU has run that.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch

from executor.inference.slot_steps import BatchSteps
from executor.weights.execution_map import ExecutionMap

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
    the batch it computes, with the KV groups [layers] that it has shares of.

    Between two calls of `begin` and `end` one layer computes one phase.
    """

    def __init__(
        self,
        number: int,
        made: ExecutionMap,
        batch: BatchSteps,
        groups: list[int],
        device: torch.device,
    ) -> None:
        self.number, self.map, self.batch, self.groups = number, made, batch, groups
        self._on_cpu = device.type == "cpu"
        self._marks: list[tuple[int, int, Mark, Mark]] = []

    def begin(self) -> Mark:
        """Before a layer computes."""
        if self._on_cpu:
            return time.thread_time(), time.perf_counter()
        event = Event(enable_timing=True)
        event.record()
        return event

    def end(self, layer: int, phase: int, begun: Mark) -> None:
        """After it has, or has been queued to."""
        self._marks.append((layer, phase, begun, self.begin()))

    @property
    def over(self) -> bool:
        """Whether all that was queued has been computed."""
        last = self._marks[-1][3] if self._marks else None
        return not isinstance(last, Event) or bool(last.query())

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
