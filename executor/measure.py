"""Timing: one device's share of a layer, alone on its accelerator."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

import torch

from executor.activations import Activations
from executor.messages import Sample
from executor.prepared import Prepared
from executor.shard import LayerShard
from executor.steps import Done, Step
from executor.tensors import make_step
from executor.timing_lock import timing_lock
from executor.watching import head_reports
from profiles.architecture import Architecture
from profiles.cost.work import FEATURES, Workload
from solver.plans import Plan

if TYPE_CHECKING:
    # transformers takes seconds to load, and only a node with a model needs it.
    from executor.traffic import Traffic

Key = tuple[Architecture, Workload]
TURNS = 3
"""Runs of each of two ways that are compared."""


class Bench:
    """The accelerators of a node (`cpu` or `cuda:i`, one per local device, repeats allowed).

    `sms` are the multiprocessors that each local device keeps to, None for all of them. With
    `traffic` whole prompts are a model's own activations; decodes are random tensors as ever.
    """

    def __init__(
        self,
        accelerators: Sequence[str],
        backend: str,
        sms: Sequence[int | None] | None = None,
        traffic: "Traffic | None" = None,
    ) -> None:
        self.accelerators, self.backend = tuple(accelerators), backend
        self.traffic = traffic
        self.sms = tuple(sms) if sms is not None else (None,) * len(self.accelerators)
        self._key: Key | None = None
        self._steps: dict[str, Step] = {}
        self._warm: set[LayerShard | str] = set()
        self._own: set[LayerShard] = set()
        # A device is one core: the profile's `cpu` says so, and a plan's devices run in parallel.
        torch.set_num_threads(1)

    def next_round(
        self, plan: Plan, layers: Sequence[int], interrupted: Callable[[], bool]
    ) -> dict[int, Activations]:
        """What the next prompts make of the layers; nothing where tensors are random.

        Raises InterruptedWait, and CannotMeasureError where the model does not fit the plan.
        """
        if self.traffic is None or plan.workload.phase != "prefill":
            return {}
        with timing_lock(self.accelerators[0], interrupted):
            return self.traffic.next_round(plan.architecture, plan.workload.workload, layers)

    def measure(
        self,
        shard: LayerShard,
        local_device: int,
        interrupted: Callable[[], bool],
        activations: Activations | None = None,
    ) -> Sample | None:
        """Run and time a shard on a local device; None when it has nothing to do.

        `seconds` covers the whole step, laid out beforehand, from an idle accelerator to an idle
        one, holding the accelerator's machine-wide lock; see `_clock` for whose time it is. Dense
        heads that PyTorch's attention can compute go to it where that is faster: tried before a
        shard is measured first. Of a model's own `activations`, the layer's, recovery is estimated
        afterwards. Raises InterruptedWait as soon as `interrupted()` while the lock is awaited,
        CannotMeasureError when the workload does not fit.
        """
        if not shard.heads:
            return None
        accelerator = self.accelerators[local_device]
        with timing_lock(accelerator, interrupted):
            step = self._step(shard, accelerator)
            prepared, sms = step.prepare(shard), self.sms[local_device]
            real = None if activations is None else activations.of(shard, step.q)

            def run(prepared: Prepared) -> tuple[float, Done]:
                _finish(accelerator)
                clock = _clock(accelerator)
                start = clock()
                done = step.run(shard, prepared, self.backend, sms, real)
                _finish(accelerator)
                return clock() - start, done

            if self._cold(shard, accelerator):
                run(prepared)
                if prepared.apart is not None and sms is None and _own_is_faster(run, prepared):
                    self._own.add(shard)
            if shard in self._own:
                prepared = replace(prepared, apart=None)
            seconds, done = run(prepared)
            heads = None
            if real is not None:
                heads = head_reports(shard, prepared, real.q, step.room.cache, done.lse)
        return Sample(
            layer=shard.layer,
            device=shard.device,
            seconds=seconds,
            work={name: float(done.work[name]) for name in FEATURES},
            heads=heads,
        )

    def _step(self, shard: LayerShard, accelerator: str) -> Step:
        key = (shard.architecture, shard.workload)
        if key != self._key:
            # The old tensors go before the new ones come: two workloads may not fit at once.
            self._steps.clear()
            self._warm.clear()
            self._own.clear()
            torch.cuda.empty_cache()
            self._key = key
        if accelerator not in self._steps:
            self._steps[accelerator] = make_step(*key, accelerator)
        return self._steps[accelerator]

    def _cold(self, shard: LayerShard, accelerator: str) -> bool:
        """Whether to run once untimed: on a GPU every new shard may compile a kernel; on a CPU,
        where only the first run of all is slow, a second run of each would double the time."""
        first = accelerator if accelerator == "cpu" else shard
        known = first in self._warm
        self._warm.add(first)
        return not known


def _own_is_faster(run: Callable[[Prepared], tuple[float, Done]], prepared: Prepared) -> bool:
    """Whether a step is faster without PyTorch's attention for its dense heads, which has run once.

    Taking turns; medians.
    """
    own = replace(prepared, apart=None)
    run(own)
    turns = [(run(prepared)[0], run(own)[0]) for _ in range(TURNS)]
    return median(b for _, b in turns) < median(a for a, _ in turns)


def _clock(accelerator: str) -> Callable[[], float]:
    """Wall time for a GPU. For a CPU device, which is one core, the time this thread had one:
    what other programs took of the core in between is not the share's."""
    return time.thread_time if accelerator == "cpu" else time.perf_counter


def _finish(accelerator: str) -> None:
    if accelerator != "cpu":
        torch.cuda.synchronize(accelerator)
