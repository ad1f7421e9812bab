"""Timing: one device's share of a layer, alone on its accelerator."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

import torch

from api.client.bodies import DeviceSample
from executor.attention.step import PreparedStep
from executor.node.activations import Activations
from executor.node.head_recovery import head_reports
from executor.node.layers import Done, Layer, make_layer
from executor.node.shard import LayerShard
from executor.node.timing_lock import timing_lock
from profiles.architecture import Architecture
from profiles.cost.work import FEATURES, Workload
from solver.plans import Plan

if TYPE_CHECKING:
    # transformers takes seconds to load, and only a node with a model needs it.
    from executor.node.traffic import Traffic

Key = tuple[Architecture, Workload]
Placed = tuple[LayerShard, int]
"""A shard and the local device that computes it."""
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
        self._layers: dict[str, Layer] = {}
        self._prepared: dict[Placed, PreparedStep] = {}
        self._warm = False
        self._threads = torch.get_num_threads()
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
            # On all cores: nothing is timed meanwhile.
            torch.set_num_threads(self._threads)
            try:
                return self.traffic.next_round(plan.architecture, plan.workload.workload, layers)
            finally:
                torch.set_num_threads(1)

    def keep(self, placed: Iterable[Placed]) -> None:
        """Forget the steps of all shards but these, each with its local device."""
        kept = set(placed)
        self._prepared = {key: step for key, step in self._prepared.items() if key in kept}

    def measure(
        self,
        shard: LayerShard,
        local_device: int,
        interrupted: Callable[[], bool],
        activations: Activations | None = None,
    ) -> DeviceSample | None:
        """Run and time a shard on a local device; None when it has nothing to do.

        `seconds` covers everything a device does in the layer, its step prepared once beforehand,
        from an idle accelerator to an idle one, holding the accelerator's machine-wide lock; see
        `_clock` for whose time it is. Of a model's own `activations`, the layer's, recovery is
        estimated afterwards. Raises InterruptedWait as soon as `interrupted()` while the lock is
        awaited, CannotMeasureError when the workload does not fit.
        """
        if not shard.heads:
            return None
        accelerator, sms = self.accelerators[local_device], self.sms[local_device]
        with timing_lock(accelerator, interrupted):
            layer = self._layer(shard, accelerator)
            real = None if activations is None else activations.of(shard, layer.q)

            def run(prepared: PreparedStep) -> tuple[float, Done]:
                _finish(accelerator)
                clock = _clock(accelerator)
                start = clock()
                done = layer.run(shard, prepared, self.backend, sms, real)
                _finish(accelerator)
                return clock() - start, done

            prepared = self._prepared.get((shard, local_device))
            if prepared is None:
                prepared = self._tried(layer.prepare(shard), local_device, run)
                self._prepared[shard, local_device] = prepared
            seconds, done = run(prepared)
            heads = None
            if real is not None:
                heads = head_reports(shard, prepared, real.q, layer.kv.cache, done.lse)
        return DeviceSample(
            layer=shard.layer,
            device=shard.device,
            seconds=seconds,
            work={name: float(done.work[name]) for name in FEATURES},
            heads=heads,
        )

    def _layer(self, shard: LayerShard, accelerator: str) -> Layer:
        key = (shard.architecture, shard.workload)
        if key != self._key:
            # The old tensors go before the new ones come: two workloads may not fit at once.
            self._layers.clear()
            self._prepared.clear()
            self._warm = False
            torch.cuda.empty_cache()
            self._key = key
        if accelerator not in self._layers:
            self._layers[accelerator] = make_layer(*key, accelerator)
        return self._layers[accelerator]

    def _tried(
        self,
        prepared: PreparedStep,
        local_device: int,
        run: Callable[[PreparedStep], tuple[float, Done]],
    ) -> PreparedStep:
        """A new step run once untimed, in the faster of its ways.

        On a GPU every new shard may compile a kernel, and dense heads that PyTorch's attention can
        compute go to it where that is faster. On a CPU only the first run of all is slow, and a
        second run of each would double the time.
        """
        if self.accelerators[local_device] == "cpu" and self._warm:
            return prepared
        run(prepared)
        self._warm = True
        if prepared.apart is None or self.sms[local_device] is not None:
            return prepared
        return replace(prepared, apart=None) if _own_is_faster(run, prepared) else prepared


def _own_is_faster(
    run: Callable[[PreparedStep], tuple[float, Done]], prepared: PreparedStep
) -> bool:
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
