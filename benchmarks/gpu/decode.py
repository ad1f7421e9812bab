"""Decode: bytes of K and V a second, dense and sparse, under a CUDA graph, beside SDPA.

A step's bytes are those of the key blocks its lists hold; at batch 1 the aim is at most 20 us for
8K dense, at batch 16 at least 4.0 TB/s. `of_proportional`: dense time times the share of blocks,
over the sparse time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.gpu import peers
from benchmarks.gpu.plans import layers
from benchmarks.gpu.scene import LLAMA_8B, TINY, Shape, Tensors, drawn, usual_dtype
from benchmarks.gpu.section import Row, Section
from benchmarks.gpu.timing import rotation, timed
from executor.kernels.batch import Chunk
from executor.kernels.bounds import page_bounds
from executor.kernels.decode_layout import DecodeHeads, DecodeLayout, DecodeLists, lay_out_decode
from executor.kernels.select_decode import select_decode
from executor.kernels.triton.decode import decode_attention

BATCHES = (1, 16, 4, 64)
CONTEXTS = (8_192, 32_768, 131_072)
BLOCK = 64
MOST_HELD_BYTES = 40 * 2**30


@dataclass(frozen=True, eq=False)
class Step:
    """One new token of every sequence, its blocks chosen."""

    tensors: Tensors
    bounds: torch.Tensor
    context_tokens: torch.Tensor
    layout: DecodeLayout
    lists: DecodeLists

    def choose(self) -> DecodeLists:
        tensors = self.tensors
        return chosen(tensors, self.bounds, self.layout, self.context_tokens)

    def attend(self, sms: int | None = None) -> None:
        self._attend(self.lists, sms)

    def choose_and_attend(self) -> None:
        self._attend(self.choose(), None)

    def _attend(self, lists: DecodeLists, sms: int | None) -> None:
        x, context = self.tensors, self.context_tokens
        decode_attention(x.q, x.cache, self.layout, lists, context, x.out, x.lse, sms)


def chosen(
    tensors: Tensors, bounds: torch.Tensor, layout: DecodeLayout, context_tokens: torch.Tensor
) -> DecodeLists:
    """By the kernels, in the interpreter too: what is to be measured."""
    return select_decode(tensors.q, bounds, tensors.cache, layout, context_tokens, use_triton=True)


def steps(
    shape: Shape,
    batch: int,
    context: int,
    block: int,
    budgets: Sequence[int] | int,
    *,
    device: torch.device,
    sets: int,
) -> list[Step]:
    """`batch` sequences of `context` tokens; `budgets` in blocks, one for each KV group."""
    each = [budgets] * shape.kv_heads if isinstance(budgets, int) else budgets
    chunks = (Chunk(context - 1, 1),) * batch
    size = shape.group_size
    groups = [
        DecodeHeads(s, s, group, tuple(range(group * size, (group + 1) * size)), each[group])
        for s in range(batch)
        for group in range(shape.kv_heads)
    ]
    layout = lay_out_decode(groups, -(-context // block), block, device)
    contexts = torch.full((batch,), context, dtype=torch.int32, device=device)
    found = []
    for seed in range(sets):
        tensors = drawn(
            shape, chunks, block, device=device, dtype=usual_dtype(device), paged=True, seed=seed
        )
        bounds = page_bounds(tensors.cache, contexts)
        lists = chosen(tensors, bounds, layout, contexts)
        found.append(Step(tensors, bounds, contexts, layout, lists))
    return found


def run(section: Section) -> None:
    if section.tiny:
        section.attempt("tiny", partial(_measured, section, 2, 48, {"half": 2}))
        section.attempt("tiny peers", partial(_sdpa, section, 2, 48))
        return
    budgets = _group_budgets()
    for batch in BATCHES:
        for context in CONTEXTS:
            name = f"batch {batch} context {context}"
            section.attempt(name, partial(_measured, section, batch, context, budgets))
            section.attempt(f"{name} peers", partial(_sdpa, section, batch, context))


def _group_budgets() -> dict[str, dict[int, list[int]] | int]:
    """Largest budget of every group by profile and context, from the plans at that context."""
    found: dict[str, dict[int, list[int]] | int] = {}
    for layer in layers():
        if layer.shape == LLAMA_8B and layer.profile.startswith(("minference", "llama")):
            by_context = found.setdefault(layer.profile, {})
            assert isinstance(by_context, dict)
            size = layer.shape.group_size
            groups = [layer.adaptive[i : i + size] for i in range(0, len(layer.adaptive), size)]
            by_context.setdefault(layer.context_tokens, [max(group) for group in groups])
    return found


def _measured(
    section: Section,
    batch: int,
    context: int,
    profiles: dict[str, dict[int, list[int]] | int],
) -> Row:
    shape, block = (TINY, 16) if section.tiny else (LLAMA_8B, BLOCK)
    blocks = -(-context // block)
    dense = _row(section, shape, batch, context, block, blocks)
    row: Row = {"batch": batch, "tokens": context, "block": block}
    row |= {f"dense_{key}": value for key, value in dense.items()}
    for name, budgets in {"eighth": max(blocks // 8, 1), **profiles}.items():
        at = budgets.get(context) if isinstance(budgets, dict) else budgets
        if at is None:
            continue
        sparse = _row(section, shape, batch, context, block, at)
        sparse["of_proportional"] = dense["s"] * sparse["bytes"] / dense["bytes"] / sparse["s"]
        row |= {f"{name}_{key}": value for key, value in sparse.items()}
    return row


def _row(
    section: Section,
    shape: Shape,
    batch: int,
    context: int,
    block: int,
    budgets: Sequence[int] | int,
) -> Row:
    each = [budgets] * shape.kv_heads if isinstance(budgets, int) else budgets
    block_bytes = 2 * block * shape.head_dim * usual_dtype(section.device).itemsize
    read = batch * sum(min(budget, -(-context // block)) for budget in each) * block_bytes
    # What is read decides how many sets the cache needs, what is held how many there can be.
    held = batch * shape.kv_heads * -(-context // block) * block_bytes
    count = min(rotation(read), max(1, MOST_HELD_BYTES // held))
    sets = steps(shape, batch, context, block, budgets, device=section.device, sets=count)
    took = timed([step.attend for step in sets], seconds=0.1, graph=True)
    whole = timed([step.choose_and_attend for step in sets], seconds=0.1, graph=True)
    return {
        **took.figures(),
        "bytes": read,
        "bytes_per_s": read / took.median_s,
        "with_selection_s": whole.median_s,
        "sets": count,
    }


def _sdpa(section: Section, batch: int, context: int) -> Row:
    shape = TINY if section.tiny else LLAMA_8B
    dtype, device = usual_dtype(section.device), section.device
    bytes_each = 4 * shape.kv_heads * context * shape.head_dim * batch
    count = 1 if section.tiny else rotation(bytes_each)
    size = (batch, shape.kv_heads, context, shape.head_dim)
    row: Row = {"batch": batch, "tokens": context}
    q = torch.randn(batch, shape.query_heads, 1, shape.head_dim, device=device, dtype=dtype)
    kv = [[torch.randn(size, device=device, dtype=dtype) for _ in range(2)] for _ in range(count)]
    for name, backend in peers.sdpa_backends().items():
        with peers.recorded(row, name):
            calls = [peers.sdpa(q, keys, values, backend, causal=False) for keys, values in kv]
            took = timed(calls, seconds=0.1, graph=True)
            row |= took.figures(name) | {f"{name}_bytes_per_s": bytes_each / took.median_s}
    with peers.recorded(row, "flashinfer"):
        calls = [
            peers.flashinfer_decode(q[:, :, 0], keys, values, BLOCK) for keys, values in kv[:8]
        ]
        took = timed(calls, seconds=0.1)
        row |= took.figures("flashinfer")
        row["flashinfer_bytes_per_s"] = bytes_each / took.median_s
    return row
