"""Attention by a plan within vLLM: over its paged cache, for whole batches.

`PlanImpl` and `PlanBuilder` go before a stock back end's own classes, one of each for every
platform (`cpu`, `cuda`). Layers that the plan does not cover are the stock back end's: with a
window, a soft cap, sinks or ALiBi, and those of other models in the engine. Of these layers, too,
rows that other ranks compute are left to them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from vllm.config import VllmConfig, get_current_vllm_config, get_layers_from_vllm_config
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.models.utils import extract_layer_index

from executor.attention.block_sparse import attend
from executor.engines.vllm.serving import Serving, serving
from executor.engines.vllm.timing import SampledStep
from executor.errors import AttentionError, WeightsError
from executor.inference.slot_steps import BatchSteps, PagedPhase, SlotSteps, paged
from executor.kernels.batch import Cache
from executor.kernels.bounds import refresh_page_bounds

BATCH = "hplb"
"""The attribute of a stock back end's metadata that holds a `Batch`."""


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch for the layers of a builder: those the plan computes, and the stock layers' rows.

    `sampled` where it is timed.
    """

    phases: tuple[PagedPhase, ...]
    stock: BatchSteps | None
    sampled: SampledStep | None = None


class PlanImpl:
    """Attention of a layer of a model that has a map; before a stock back end's implementation."""

    # Set by the stock implementation.
    head_size: int
    num_heads: int
    num_kv_heads: int
    scale: float

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        attn_type: str = "decoder",
        kv_sharing_target_layer_name: str | None = None,
        **others: Any,
    ) -> None:
        stock: Any = super()
        stock.__init__(
            num_heads,
            head_size,
            scale,
            num_kv_heads,
            alibi_slopes,
            sliding_window,
            kv_cache_dtype,
            logits_soft_cap,
            attn_type,
            kv_sharing_target_layer_name,
            **others,
        )
        config = get_current_vllm_config()
        served = serving(config)
        assert served is not None
        self._most_tokens = config.model_config.max_model_len
        self.served = served
        features = (alibi_slopes, sliding_window, logits_soft_cap, *others.values())
        self.computes = attn_type == "decoder" and not any(
            x is not None and x is not False for x in features
        )
        if kv_sharing_target_layer_name is not None:
            raise WeightsError(
                f"HPLB: a layer shares the K/V of {kv_sharing_target_layer_name}, whose heads are "
                "slots of its own: this model cannot be served by a plan"
            )
        self._number: int | None = None
        self._chooses = True
        self._bounds: torch.Tensor | None = None
        self._of_cache = 0

    def forward(
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: Any,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attention of query [tokens, heads, head_size] into output, alike.

        kv_cache [blocks, kv_heads, block, 2 head_size] has the new tokens' keys and values.
        """
        number = self._layer(layer)
        batch: Batch | None = getattr(attn_metadata, BATCH, None)
        if batch is None or not self._computes(number):
            stock: Any = super()
            stock.forward(
                layer,
                query,
                key,
                value,
                kv_cache,
                attn_metadata,
                output,
                output_scale,
                output_block_scale,
            )
            if batch is not None and batch.stock is not None:
                leave_to_others(output, batch.stock, number)
            return output
        if output_scale is not None or output_block_scale is not None:
            raise AttentionError("HPLB: has no fused quantisation of its output")
        tokens = attn_metadata.num_actual_tokens
        q, out = query[:tokens].transpose(0, 1), output[:tokens].transpose(0, 1)
        if self.scale != self.head_size**-0.5:
            q = q * (self.scale * self.head_size**0.5)
        keys, values = self.halves(kv_cache)
        for place, of in enumerate(batch.phases):
            step, at = of.phase.steps[number], of.phase.tokens
            begun = None if batch.sampled is None else batch.sampled.begin()
            # Whoever computes now: the next step may be this rank's.
            bounds = self._bounded(keys, of)
            if step is None:
                out[:, at] = 0.0
                continue
            step, cache = step.at_context(of.context), Cache(keys, values, pages=of.pages)
            found = attend(q[:, at], cache, step, bounds=bounds)
            out[:, at] = found.out
            if batch.sampled is not None and begun is not None:
                batch.sampled.end(number, place, begun)
                if batch.sampled.watched == number:
                    batch.sampled.watch(place, q[:, at], cache, step, found.lse)
        return output

    def halves(self, kv_cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [blocks, kv_heads, block, head_size] in the cache, not copied."""
        return kv_cache[..., : self.head_size], kv_cache[..., self.head_size :]

    def _bounded(self, keys: torch.Tensor, of: PagedPhase) -> torch.Tensor:
        """The bounds of all pages' pieces, those of the pages just written to made anew.

        Blocks that requests share keep theirs, as they keep their keys.
        """
        if self._bounds is None or self._of_cache != keys.data_ptr():
            blocks, groups, size, head_size = keys.shape
            rows = blocks * (size // self.served.map.piece_tokens)
            self._bounds = keys.new_zeros(rows, groups, 2, head_size)
            self._of_cache = keys.data_ptr()
        if self._chooses:
            touched = Cache(keys, keys, pages=of.touched)
            refresh_page_bounds(touched, self._bounds, of.filled)
        return self._bounds

    def _layer(self, layer: Any) -> int:
        if self._number is None:
            self._number = extract_layer_index(layer.layer_name)
            # Of its budgets, whether one leaves something out of the longest context.
            budgets = self.served.map.budgets
            # Of budgets that may change the next ones may, and then need all bounds.
            if self._number < len(budgets) and not self.served.listens:
                self._chooses = min(budgets[self._number]) < self._most_tokens
        return self._number

    def _computes(self, number: int) -> bool:
        return self.computes and number < self.served.map.architecture.layers


class PlanBuilder:
    """A batch's steps beside a stock back end's metadata, which it goes before."""

    # Set by the stock builder.
    device: torch.device

    def __init__(
        self,
        kv_cache_spec: Any,
        layer_names: list[str],
        vllm_config: VllmConfig,
        device: torch.device,
    ) -> None:
        stock: Any = super()
        stock.__init__(kv_cache_spec, layer_names, vllm_config, device)
        self._served = serving(vllm_config)
        self._computed: SlotSteps | None = None
        self._stock: SlotSteps | None = None
        self._sampled: SampledStep | None = None
        if self._served is None:
            return
        made = self._served.map
        if kv_cache_spec.block_size % made.piece_tokens:
            raise WeightsError(
                f"HPLB: plan {made.plan[:12]} has pieces of {made.piece_tokens} tokens, which do "
                f"not fill blocks of {kv_cache_spec.block_size}: --block-size must be a multiple"
            )
        self._block = kv_cache_spec.block_size
        self._speculates = vllm_config.speculative_config is not None
        most = vllm_config.model_config.max_model_len
        layers = get_layers_from_vllm_config(vllm_config, Attention, layer_names)
        numbers: dict[bool, set[int]] = {True: set(), False: set()}
        for name, layer in layers.items():
            numbers[getattr(layer.impl, "computes", False)].add(extract_layer_index(name))
        self._layers = {kind: frozenset(of) for kind, of in numbers.items()}
        self._most_tokens = most
        self._builds = 0
        self._lay_out(self._served)
        if self._computed is not None:
            # Decodes first, so that a batch's phases are slices of it.
            self.reorder_batch_threshold: int | None = 1

    def build(
        self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False
    ) -> Any:
        """The stock back end's metadata, with a `Batch` where a plan is served."""
        stock: Any = super()
        metadata = stock.build(common_prefix_len, common_attn_metadata, fast_build)
        if self._served is not None:
            self._served.turn()
            if self._made is not self._served.map:
                self._lay_out(self._served)
            setattr(metadata, BATCH, self._batch(self._served, common_attn_metadata))
        return metadata

    def _lay_out(self, served: Serving) -> None:
        """Steps of the map that is served from now on."""
        self._made = served.map

        def steps(computes: bool) -> SlotSteps:
            return served.steps(self._layers[computes], self._most_tokens, self.device)

        self._computed = steps(True) if self._layers[True] else None
        needed = bool(self._layers[False]) and served.map.layout.needs_map
        self._stock = steps(False) if needed else None

    def _batch(self, served: Serving, common: Any) -> Batch:
        starts = common.query_start_loc_cpu[: common.num_reqs + 1]
        context = common.seq_lens_cpu_upper_bound
        # Of drafts that may be refused the bound is too large.
        if context is None or self._speculates:
            context = common.seq_lens.cpu()
        context = context[: common.num_reqs].long()
        cached = (context - starts.diff()).clamp(min=0)
        lengths = (cached.tolist(), (cached + starts.diff()).tolist())
        stock = None if self._stock is None else self._stock.of_batch(*lengths)
        if self._computed is None:
            return Batch((), stock)
        steps = self._computed.of_batch(*lengths)
        served.report.add(steps.tiles, steps.dense_tiles)
        table, has = common.block_table_tensor, common.seq_lens
        phases = tuple(paged(phase, table, has, self._block) for phase in steps.phases)
        return Batch(phases, stock, self._sample(served, steps, self._computed.groups))

    def _sample(self, served: Serving, steps: BatchSteps, groups: list[int]) -> SampledStep | None:
        """Hand over the last sampled step, and begin one where it is its turn."""
        self._builds += 1
        if served.reporter is None or not served.sample_every:
            return None
        if self._sampled is not None:
            served.reporter.timed(self._sampled)
            self._sampled = None
        if self._builds % served.sample_every == 0:
            layers = sorted(self._layers[True])
            watched = layers[self._builds // served.sample_every % len(layers)]
            self._sampled = SampledStep(
                self._builds, served.map, served.held, steps, groups, self.device, watched
            )
        return self._sampled


def leave_to_others(output: torch.Tensor, steps: BatchSteps, layer: int) -> None:
    """Zeros in the rows of output [tokens, heads, head_size] that no slot of this rank computes."""
    for phase in steps.phases:
        step = phase.steps[layer]
        rows = output[phase.tokens]
        mine = torch.zeros(rows.shape[:2], dtype=torch.bool)
        for head, spans in enumerate(() if step is None else step.spans):
            for span in spans:
                mine[span, head] = True
        output[phase.tokens] = rows.masked_fill(~mine.to(rows.device)[..., None], 0.0)
