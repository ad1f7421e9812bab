"""What attention, products and all-reduces cost here and now: single layers of random tensors.

Attention goes the way of the rows' own, and its parts are those of contiguous placements of every
kind of budgets and of divided ones: whole heads alone do not tell a head's first rows from its
last. A machine is not as fast at one moment as at another, so that ranks time a few of the layers
before every row and all of them in a round. They do so in step, as a model's layers have them: what
two cores share they share then, and an all-reduce waits for the slower one.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Self

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import Linear
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaMLP,
    LlamaRMSNorm,
    apply_rotary_pos_emb,
)

from executor.attention.shares import LayerShares
from executor.inference.block_attention import BlockAttention
from executor.inference.policy import LayerCall
from executor.node.shard import layer_shard
from profiles.architecture import Architecture
from profiles.catalogue import device_profile
from profiles.cost.rates import Rates
from profiles.cost.regression import refit
from profiles.cost.rest_of_step import REDUCED as REDUCED_TIMES
from profiles.cost.roofline import roofline
from profiles.cost.samples import Sample
from profiles.cost.work import INDEX
from solver.planning.predict import shard_work
from solver.plans import Plan

TIMED_TOKENS = 3 * 8192
"""In all layers that are timed of a plan, the context of each."""
PROJECTED, REDUCED = "projection_flops", "link_bytes"


@dataclass(frozen=True)
class Timed:
    """Work [FEATURES] as the cost model counts it, and the seconds it took in a round.

    Attention, or one feature alone: the FLOPs of products, the bytes of all-reduces. Of attention
    `seconds` are those that the thread had a core, of `wall_s` until it was done.
    """

    round: int
    work: list[float]
    seconds: float
    wall_s: float

    @property
    def alone(self) -> str | None:
        """The one feature of what is not attention."""
        found = [name for name in (PROJECTED, REDUCED) if self.work[INDEX[name]]]
        return found[0] if found else None


@dataclass(frozen=True, eq=False)
class Probe:
    """A device's part of a layer, which may be nothing, and its attention's work [FEATURES]."""

    heads: int
    shares: LayerShares
    work: list[float]

    @classmethod
    def of(cls, plan: Plan, devices: Iterable[int]) -> Iterator[Self]:
        """Of some layers of a disaggregated plan, on these devices."""
        layers, context = len(plan.layers), plan.workload.context_tokens
        for layer in range(0, layers, max(1, layers * context // TIMED_TOKENS)):
            work = shard_work(plan, layer)
            # Keys and values are there: no link brings them.
            work[:, INDEX[REDUCED]] = 0
            for device in devices:
                shard = layer_shard(plan, device, layer)
                yield cls(len(shard.heads), LayerShares(shard.shares), work[device].tolist())


class Calibration:
    """Layers to time, in slices of which each has some of every plan's on some of its devices."""

    def __init__(self, plans: Sequence[Plan], slices: int, devices: Sequence[int]) -> None:
        first = plans[0]
        self.architecture, step = first.architecture, first.workload.workload
        every = [probe for plan in plans for probe in Probe.of(plan, devices)]
        self.slices = [every[place::slices] for place in range(slices)]
        self._blocks = BlockAttention(
            first.selection, step.block_tokens, step.piece_tokens, "auto", 0, len(every)
        )
        generator = torch.Generator().manual_seed(0)
        shape, tokens = self.architecture, step.context_tokens

        def random(*of: int) -> torch.Tensor:
            return torch.randn(of, generator=generator)

        self._q = random(shape.query_heads, tokens, shape.head_dim)
        self._keys, self._values = (random(shape.kv_heads, tokens, shape.head_dim) for _ in "kv")
        self._hidden = random(1, tokens, shape.hidden_size)
        self._around = Around(shape, len(first.devices))
        # No slice is the first to touch a page, or to prepare a step.
        for probe in every:
            self._attend(probe)

    def time(self, number: int, place: int) -> list[Timed]:
        """A slice of the layers, each what is around attention and then that, as in a model's
        caches; all ranks begin a layer at once."""
        around, found = self._around, []
        products = _alone(PROJECTED, 2 * self._hidden.shape[1] * around.parameters_multiplied)
        reduced = _alone(REDUCED, around.reduced_bytes(self._hidden))
        for probe in self.slices[place % len(self.slices)]:
            products_s, reduced_s = self._surround()
            found.append(Timed(number, products, products_s, products_s))
            if reduced_s:
                found.append(Timed(number, reduced, reduced_s, reduced_s))
            found.append(Timed(number, probe.work, *self._attend(probe)))
        return found

    def _attend(self, probe: Probe) -> tuple[float, float]:
        """Seconds that this thread had a core, and those until it was done."""
        call = LayerCall(0, self._q[: probe.heads], self._keys, self._values, self._scaling)
        began = time.thread_time(), time.perf_counter()
        self._blocks.attend_shares(call, probe.shares)
        return time.thread_time() - began[0], time.perf_counter() - began[1]

    @property
    def _scaling(self) -> float:
        return float(self.architecture.head_dim**-0.5)

    @torch.no_grad()
    def _surround(self) -> tuple[float, float]:
        """Seconds of a layer without attention and all-reduces, and those of its all-reduces."""
        if dist.is_initialized():
            dist.barrier()
        before_s, began = self._around.reduced_s, time.perf_counter()
        self._around(self._hidden)
        reduced_s = self._around.reduced_s - before_s
        return time.perf_counter() - began - reduced_s, reduced_s


class Around(torch.nn.Module):
    """A Llama's layer without its attention, as one of some ranks has it, its slots' projections.

    Norms, rotations and activations are no FLOPs that the cost model counts: the products' rate
    takes what they cost beside them. The time that a rank waits for the others is the all-reduces'.
    """

    def __init__(self, shape: Architecture, ranks: int) -> None:
        super().__init__()
        assert shape.mlp_size is not None  # The profile has the model's MLP.
        hidden, slots = shape.hidden_size, -(-shape.kv_heads // ranks)
        self.head_dim = shape.head_dim
        config = LlamaConfig(hidden_size=hidden, intermediate_size=shape.mlp_size // ranks)
        kv = slots * shape.head_dim
        q = kv * shape.group_size
        self.norm, self.mlp = LlamaRMSNorm(hidden), LlamaMLP(config)
        self.q, self.k, self.v = (Linear(hidden, width, bias=False) for width in (q, kv, kv))
        self.o = Linear(q, hidden, bias=False)
        self.reduced_s = 0.0
        """Of all all-reduces so far."""

    @property
    def parameters_multiplied(self) -> int:
        """Of all matrices."""
        return sum(each.numel() for each in self.parameters() if each.dim() == 2)

    def reduced_bytes(self, hidden: torch.Tensor) -> float:
        """What a rank sends of a layer, by a ring."""
        ranks = dist.get_world_size() if dist.is_initialized() else 1
        return REDUCED_TIMES * 2 * (ranks - 1) / ranks * hidden.numel() * hidden.itemsize

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden [1, tokens, hidden_size], and like it what the next layer gets."""
        given = self.norm(hidden)
        q, k, _ = (
            each(given).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for each in (self.q, self.k, self.v)
        )
        angles = hidden.new_ones(1, hidden.shape[1], self.head_dim)
        q, _ = apply_rotary_pos_emb(q, k, angles, angles)
        hidden = hidden + self._added(self.o(q.transpose(1, 2).flatten(2)))
        return hidden + self._added(self.mlp(self.norm(hidden)))

    def _added(self, part: torch.Tensor) -> torch.Tensor:
        """The sum of all ranks' parts."""
        if dist.is_initialized():
            began = time.perf_counter()
            dist.all_reduce(part)
            self.reduced_s += time.perf_counter() - began
        return part


@dataclass(frozen=True)
class Fitted:
    """A CPU core's rates, and what they are wrong by for single layers' attention, the root of the
    mean square of (measured - predicted) / predicted.

    By them attention has `wall_per_s` seconds until it is done for one that it has a core.
    """

    rates: Rates
    error: float
    wall_per_s: float = 1.0


def fitted(timed: Iterable[Timed], context: int) -> Fitted:
    """Attention's rates fitted together; products' and all-reduces' each a mean, as a step is the
    sum of its layers."""
    cpu = device_profile("cpu")
    attention: list[Sample] = []
    wall_s = 0.0
    apart: dict[str, list[float]] = {PROJECTED: [], REDUCED: []}
    for each in timed:
        if each.alone is not None:
            apart[each.alone].append(each.seconds / each.work[INDEX[each.alone]])
        elif any(each.work):
            attention.append(Sample(np.array(each.work), each.seconds, context_tokens=context))
            wall_s += each.wall_s
    rates = refit(roofline(cpu, "prefill"), cpu, attention).rates
    measured = {name: mean(found) for name, found in apart.items() if found}
    ratios = np.array([each.seconds / rates.seconds(each.work) for each in attention])
    return Fitted(
        rates.model_copy(update={"seconds_per": rates.seconds_per | measured}),
        float(np.sqrt(np.mean((ratios - 1) ** 2))),
        wall_s / sum(each.seconds for each in attention),
    )


def _alone(name: str, amount: float) -> list[float]:
    work = np.zeros(len(INDEX))
    work[INDEX[name]] = amount
    return [float(each) for each in work]
