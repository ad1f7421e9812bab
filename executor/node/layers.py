"""The layer that is timed: everything the cost model charges a device for in one layer, done.

Under disaggregation (S-HPLB, arXiv 2603.10353) the K and V of the new tokens of every group present
arrive over a link; under tensor parallelism the device projects them, and its heads' q and outputs,
itself. On one device the link is a copy within its own memory.

Tensors are random, or a prompt's own activations. These come after norms and position encoding,
which no projection here would give: under tensor parallelism random ones are projected, at the same
cost, and the model's are kept in their place.

Both count what they do in units of `profiles.cost.work.FEATURES`. Bytes are counted in the
model's dtype, as the cost model predicts them, also where a CPU computes in fp32: the wider
element is part of that device's rate.
"""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from executor.attention.block_sparse import attend
from executor.attention.counts import attention_work
from executor.attention.step import PreparedStep, prepare
from executor.errors import CannotMeasureError
from executor.node.activations import Activations
from executor.node.free_memory import free_bytes
from executor.node.layer_cache import LayerCache
from executor.node.shard import LayerShard
from profiles.architecture import Architecture
from profiles.cost.work import Deployment, Workload

Shapes = dict[str, tuple[int, ...]]
Work = Counter[str]
SEED = 0


@dataclass(frozen=True, eq=False)
class Done:
    """The work done by feature, and the log-sum-exp [parts, new tokens] of what was attended to."""

    work: Work
    lse: torch.Tensor


@dataclass(frozen=True, eq=False)
class Layer(ABC):
    """The tensors of a whole model's layer, of which any device's shard can be computed.

    q [query_heads, new tokens, head_dim] and all K and V: each device its part. Where tensors are
    random, a shard's heads are q's first ones, whichever they are in the model.
    """

    q: torch.Tensor
    kv: LayerCache

    @staticmethod
    @abstractmethod
    def shapes(architecture: Architecture, workload: Workload) -> Shapes:
        """The shape of every tensor the constructor takes."""

    @abstractmethod
    def receive(
        self, shard: LayerShard, prepared: PreparedStep, real: Activations | None, work: Work
    ) -> torch.Tensor:
        """The q of the shard's heads; writes the new tokens' K and V, and adds to `work`."""

    @abstractmethod
    def hand_on(
        self, shard: LayerShard, prepared: PreparedStep, out: torch.Tensor, work: Work
    ) -> None:
        """What becomes of the attention's out [heads, new tokens, head_dim]; adds to `work`."""

    def prepare(self, shard: LayerShard) -> PreparedStep:
        """What is known of a shard before any token is: an engine does it once a plan."""
        workload, device = shard.workload, self.q.device
        block, piece = workload.block_tokens, workload.piece_tokens
        return prepare(
            shard.shares,
            shard.chunks,
            block,
            device,
            piece_tokens=piece,
            programs=lists_at_once(self.q, block, piece),
            sdpa=self.q.is_cuda,
        )

    def run(
        self,
        shard: LayerShard,
        prepared: PreparedStep,
        backend: str,
        sms: int | None,
        real: Activations | None = None,
    ) -> Done:
        """Compute a shard, its attention on `sms` multiprocessors.

        Of random tensors, or of `real` ones: the shard's own (`Activations.of`), of whole prompts.
        """
        work: Work = Counter()
        q = self.receive(shard, prepared, real, work)
        self.kv.refresh_bounds(prepared.context_tokens)
        result = attend(q, self.kv.cache, prepared, backend, bounds=self.kv.bounds, sms=sms)
        _count_attention(shard, prepared, work)
        self.hand_on(shard, prepared, result.out, work)
        return Done(work, result.lse)


@dataclass(frozen=True, eq=False)
class DisaggregatedLayer(Layer):
    """sent_keys, sent_values [kv_heads, new tokens, head_dim]: the other side's."""

    sent_keys: torch.Tensor
    sent_values: torch.Tensor

    @staticmethod
    def shapes(architecture: Architecture, workload: Workload) -> Shapes:
        new = (architecture.kv_heads, _new_tokens(workload), architecture.head_dim)
        return _attention_shapes(architecture, workload) | {"sent_keys": new, "sent_values": new}

    def receive(
        self,
        shard: LayerShard,
        prepared: PreparedStep,  # noqa: ARG002 (q is there whole, whatever is computed of it)
        real: Activations | None,
        work: Work,
    ) -> torch.Tensor:
        came = (self.sent_keys, self.sent_values) if real is None else (real.keys, real.values)
        for group in shard.groups:
            for sent, kept in zip(came, self.kv.new_rows(group), strict=True):
                kept.copy_(sent[group])
                work["link_bytes"] += sent[group].numel() * shard.architecture.item_bytes
        return self.q[: len(shard.heads)] if real is None else real.q

    def hand_on(
        self, shard: LayerShard, prepared: PreparedStep, out: torch.Tensor, work: Work
    ) -> None:
        """Nothing: outputs are projected on the other side."""


@dataclass(frozen=True, eq=False)
class TensorParallelLayer(Layer):
    """hidden [new tokens, hidden_size] and random weights; `partial` like hidden.

    weights: q, k, v [heads or groups, hidden_size, head_dim], o [heads, head_dim, hidden_size];
    `partial` is this device's term of the output projection, before the all-reduce; every run adds
    to it, as an engine adds to its residual.
    """

    hidden: torch.Tensor
    weight_q: torch.Tensor
    weight_k: torch.Tensor
    weight_v: torch.Tensor
    weight_o: torch.Tensor
    partial: torch.Tensor

    def __post_init__(self) -> None:
        # Projections of unit variance, as after a norm: no softmax then saturates.
        self.hidden.mul_(self.hidden.shape[-1] ** -0.5)

    @staticmethod
    def shapes(architecture: Architecture, workload: Workload) -> Shapes:
        width, dim = architecture.hidden_size, architecture.head_dim
        hidden = (_new_tokens(workload), width)
        return _attention_shapes(architecture, workload) | {
            "hidden": hidden,
            "weight_q": (architecture.query_heads, width, dim),
            "weight_k": (architecture.kv_heads, width, dim),
            "weight_v": (architecture.kv_heads, width, dim),
            "weight_o": (architecture.query_heads, dim, width),
            "partial": hidden,
        }

    def receive(
        self, shard: LayerShard, prepared: PreparedStep, real: Activations | None, work: Work
    ) -> torch.Tensor:
        for index, head, span in _spans(shard, prepared):
            projected = _project(self.hidden[span], self.weight_q[head], work)
            self.q[index, span] = projected if real is None else real.q[index, span]
        came = (None, None) if real is None else (real.keys, real.values)
        for group in shard.groups:
            kept_rows, weights = self.kv.new_rows(group), (self.weight_k, self.weight_v)
            for weight, kept, sent in zip(weights, kept_rows, came, strict=True):
                projected = _project(self.hidden, weight[group], work)
                kept.copy_(projected if sent is None else sent[group])
        return self.q[: len(shard.heads)]

    def hand_on(
        self, shard: LayerShard, prepared: PreparedStep, out: torch.Tensor, work: Work
    ) -> None:
        for index, head, span in _spans(shard, prepared):
            rows, weight = out[index, span], self.weight_o[head]
            self.partial[span].addmm_(rows, weight)
            work["projection_flops"] += 2 * rows.numel() * weight.shape[1]


LAYERS: dict[Deployment, type[DisaggregatedLayer] | type[TensorParallelLayer]] = {
    "disaggregated": DisaggregatedLayer,
    "tensor_parallel": TensorParallelLayer,
}


def make_layer(architecture: Architecture, workload: Workload, accelerator: str) -> Layer:
    """Seeded random tensors of the model's shape on `cpu` (fp32) or `cuda:i` (the model's dtype).

    All are filled, so that no timed run is the first to touch a page. Raises CannotMeasureError
    when they do not fit into the memory that is free now.
    """
    kind = LAYERS[workload.deployment]
    dtype = _dtype(architecture, accelerator)
    shapes = kind.shapes(architecture, workload)
    needed, free = needed_bytes(architecture, workload, dtype), free_bytes(accelerator)
    if free is not None and needed > free:
        raise CannotMeasureError(
            f"{workload.batch_size} x {workload.context_tokens} tokens of "
            f"{architecture.query_heads} heads need {needed / 1e9:.2f} GB on {accelerator} "
            f"({workload.deployment}, {str(dtype).removeprefix('torch.')}), but only "
            f"{free / 1e9:.2f} GB are free: plan for a shorter context or free memory"
        )
    generator = torch.Generator(accelerator).manual_seed(SEED)
    made = {
        name: torch.randn(shape, generator=generator, device=accelerator, dtype=dtype)
        for name, shape in shapes.items()
    }
    kv = LayerCache.of(made.pop("keys"), made.pop("values"), workload)
    return kind(kv=kv, **made)


def needed_bytes(architecture: Architecture, workload: Workload, dtype: torch.dtype) -> int:
    """Bytes of every tensor of the layer, of the attention's output, which is as large as q, and of
    the pages' bounds."""
    shapes = LAYERS[workload.deployment].shapes(architecture, workload)
    elements = sum(math.prod(shape) for shape in (*shapes.values(), shapes["q"]))
    if workload.phase == "decode":
        elements += 2 * math.prod(shapes["keys"]) // workload.piece_tokens
    return elements * dtype.itemsize


def lists_at_once(q: torch.Tensor, block_tokens: int, piece_tokens: int) -> int | None:
    """Lists that a GPU computes at once; None where none are cut."""
    if q.device.type != "cuda":
        return None
    # A machine without Triton still has the torch back end.
    from executor.kernels.triton.prefill import programs_at_once

    return programs_at_once(q.device, block_tokens, piece_tokens, q.shape[2], q.element_size())


def _spans(shard: LayerShard, prepared: PreparedStep) -> Iterator[tuple[int, int, slice]]:
    """Each range of rows that is computed: the head's place in the shard, the head, the rows."""
    # Heads whose part of a list rounds to nothing have no spans, and are perhaps the last.
    for index, (head, mine) in enumerate(zip(shard.heads, prepared.spans, strict=False)):
        for span in mine:
            yield index, head, span


def _count_attention(shard: LayerShard, step: PreparedStep, work: Work) -> None:
    workload, prompts = shard.workload, shard.workload.phase == "prefill"
    held = len(shard.groups) * workload.context_tokens * workload.batch_size
    work.update(
        attention_work(
            step.counts,
            shard.architecture,
            workload.piece_tokens,
            list_rows=workload.block_tokens if prompts else 1,
            computed_rows=step.computed_rows,
            lists=len(shard.groups) * workload.batch_size,
            read_tokens=held if prompts else step.counts.decoded_pieces * workload.piece_tokens,
        )
    )


def _project(x: torch.Tensor, weight: torch.Tensor, work: Work) -> torch.Tensor:
    work["projection_flops"] += 2 * x.numel() * weight.shape[1]
    return x @ weight


def _new_tokens(workload: Workload) -> int:
    return workload.batch_size * workload.new_tokens


def _attention_shapes(architecture: Architecture, workload: Workload) -> Shapes:
    kept = LayerCache.shape(architecture, workload)
    queries = (architecture.query_heads, _new_tokens(workload), architecture.head_dim)
    return {"q": queries, "keys": kept, "values": kept}


def _dtype(architecture: Architecture, accelerator: str) -> torch.dtype:
    dtype: torch.dtype = (
        torch.float32 if accelerator == "cpu" else getattr(torch, architecture.dtype)
    )
    return dtype
