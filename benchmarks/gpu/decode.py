"""Decode: bytes of K and V a second, dense and sparse, under a CUDA graph; beside it SDPA.

A step's bytes are those of the pieces of keys its lists hold; a page holds one. Beside attention
alone (`s`) stand the choice of pieces (`select_s`), the newest ones' bounds (`bounds_s`) and all
three as an engine runs them (`step_s`). Bounds are a 32nd of the keys, an eighth with pieces of 16,
and stay in the L2 when nothing else is read, so that a choice costs what the whole step takes more.
`of_proportional`: dense time times the share of pieces, over the sparse time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.gpu import peers as others
from benchmarks.gpu.plans import layers
from benchmarks.gpu.rows import Row
from benchmarks.gpu.scene import LLAMA_8B, TINY, Shape, Tensors, drawn, usual_dtype
from benchmarks.gpu.section import Section
from benchmarks.gpu.timing import room_bytes, rotation, timed
from benchmarks.gpu.work import decode_work
from executor.kernels.batch import Chunk
from executor.kernels.bounds import page_bounds, update_page_bounds
from executor.kernels.decode_layout import DecodeHeads, DecodeLayout, DecodeLists, lay_out_decode
from executor.kernels.select_decode import select_decode
from executor.kernels.triton.decode import decode_attention

CONTEXTS = (32_768, 8_192, 131_072)
FIRST, OTHERS = (
    tuple((batch, context) for context in CONTEXTS for batch in batches)
    for batches in ((16, 1), (4, 64))
)
CASES = (*FIRST, *OTHERS)
"""Batch and context."""
PROFILE_BATCHES = (1, 16)
PIECE, SHORT_PIECE = 64, 16
SHORT_CASES = ((16, 32_768), (1, 32_768), (16, 131_072))
"""Of steps whose pieces, and pages, hold 16 tokens, as vLLM's pages do."""
Budgets = Sequence[int] | int
"""In pieces: one for each KV group, or one for all."""


@dataclass(frozen=True, eq=False)
class Step:
    """One new token of every sequence, its pieces chosen."""

    tensors: Tensors
    bounds: torch.Tensor
    context_tokens: torch.Tensor
    layout: DecodeLayout
    lists: DecodeLists

    def choose(self) -> DecodeLists:
        tensors = self.tensors
        return chosen(tensors, self.bounds, self.layout, self.context_tokens)

    def refresh_bounds(self) -> None:
        """Of the pieces that the new tokens lie in."""
        cache = self.tensors.cache
        update_page_bounds(cache, self.bounds, self.context_tokens, use_triton=True)

    def attend(self, sms: int | None = None) -> None:
        self._attend(self.lists, sms)

    def run(self) -> None:
        """All that an engine does."""
        self.refresh_bounds()
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
    piece: int,
    budgets: Budgets,
    *,
    device: torch.device,
    sets: int,
) -> list[Step]:
    """`batch` sequences of `context` tokens, in pages of a piece."""
    each = [budgets] * shape.kv_heads if isinstance(budgets, int) else budgets
    chunks = (Chunk(context - 1, 1),) * batch
    size = shape.group_size
    groups = [
        DecodeHeads(s, s, group, tuple(range(group * size, (group + 1) * size)), each[group])
        for s in range(batch)
        for group in range(shape.kv_heads)
    ]
    layout = lay_out_decode(groups, -(-context // piece), piece, device)
    contexts = torch.full((batch,), context, dtype=torch.int32, device=device)
    found = []
    for seed in range(sets):
        tensors = drawn(
            shape,
            chunks,
            device=device,
            dtype=usual_dtype(device),
            page_tokens=piece,
            seed=seed,
        )
        bounds = page_bounds(tensors.cache, contexts)
        lists = chosen(tensors, bounds, layout, contexts)
        found.append(Step(tensors, bounds, contexts, layout, lists))
    return found


def run(section: Section) -> None:
    if section.tiny:
        section.attempt("tiny", partial(_measured, section, 2, 48, 16, {"half": 2}))
        return
    profiles = _group_budgets()
    for cases, piece in ((FIRST, PIECE), (SHORT_CASES, SHORT_PIECE), (OTHERS, PIECE)):
        for batch, context in cases:
            named = {
                name: at[context]
                for name, at in profiles.items()
                if context in at and batch in PROFILE_BATCHES and piece == PIECE
            }
            name = f"batch {batch} context {context} pieces of {piece}"
            section.attempt(name, partial(_measured, section, batch, context, piece, named))


def _group_budgets() -> dict[str, dict[int, list[int]]]:
    """Largest budget of every group by profile and context, from the middle layers' plans."""
    found: dict[str, dict[int, list[int]]] = {}
    for layer in layers():
        scored = layer.profile.startswith(("minference", "llama"))
        if layer.middle and layer.shape == LLAMA_8B and scored:
            size = layer.shape.group_size
            groups = [layer.adaptive[i : i + size] for i in range(0, len(layer.adaptive), size)]
            found.setdefault(layer.profile, {})[layer.context_tokens] = [max(g) for g in groups]
    return found


def _measured(
    section: Section, batch: int, context: int, piece: int, profiles: Mapping[str, Budgets]
) -> Row:
    pieces = -(-context // piece)
    dense = timed_step(section, batch, context, piece, pieces)
    row: Row = {"batch": batch, "tokens": context, "piece": piece, "work": {}}
    for name, budgets in {"dense": pieces, "eighth": max(pieces // 8, 1), **profiles}.items():
        found = timed_step(section, batch, context, piece, budgets)
        if name != "dense":
            proportional_s = dense["s"] * found["bytes"] / dense["bytes"]
            found = found | {"of_proportional": proportional_s / found["s"]}
        row["work"] |= {f"{name}_{key}": work for key, work in found["work"].items()}
        row |= {f"{name}_{key}": x for key, x in found.items() if key not in (*row, "budgets")}
    return row


def timed_step(section: Section, batch: int, context: int, piece: int, budgets: Budgets) -> Row:
    """A step's parts and the whole; measured once a run."""
    name = f"decode batch {batch} context {context} piece {piece} budgets {budgets}"
    return section.shared(name, partial(_timed, section, batch, context, piece, budgets))


def _timed(section: Section, batch: int, context: int, piece: int, budgets: Budgets) -> Row:
    shape = TINY if section.tiny else LLAMA_8B
    each = [budgets] * shape.kv_heads if isinstance(budgets, int) else budgets
    piece_bytes = 2 * piece * shape.head_dim * usual_dtype(section.device).itemsize
    pieces = -(-context // piece)
    read = batch * sum(min(budget, pieces) for budget in each) * piece_bytes
    # What is read decides how many sets the cache needs, what is held how many there can be.
    held = batch * shape.kv_heads * pieces * piece_bytes
    count = min(rotation(read), max(1, room_bytes() // held))
    sets = steps(shape, batch, context, piece, budgets, device=section.device, sets=count)
    took, chosen, bounded, whole = (
        timed(calls, seconds=0.1, graph=True)
        for calls in (
            [step.attend for step in sets],
            [step.choose for step in sets],
            [step.refresh_bounds for step in sets],
            [step.run for step in sets],
        )
    )
    work = partial(
        decode_work,
        sets[0].layout,
        [context] * batch,
        shape.head_dim,
        usual_dtype(section.device).itemsize,
    )
    return {
        "batch": batch,
        "tokens": context,
        "piece": piece,
        "budgets": budgets,
        **took.figures(),
        "bytes": read,
        "bytes_per_s": read / took.median_s,
        "select_s": chosen.median_s,
        "bounds_s": bounded.median_s,
        "step_s": whole.median_s,
        "sets": count,
        "work": {
            "s": work(),
            "select_s": work(attends=False, chooses=True),
            "step_s": work(chooses=True),
        },
    }


def peers(section: Section) -> None:
    for batch, context in ((2, 48),) if section.tiny else CASES:
        for backend in others.sdpa_backends():
            name = f"sdpa {backend} batch {batch} context {context}"
            section.attempt(name, partial(_sdpa, section, batch, context, backend))
    for batch, context in ((2, 48),) if section.tiny else CASES:
        name = f"flashinfer batch {batch} context {context}"
        section.attempt(name, partial(_flashinfer, section, batch, context))


def _sdpa(section: Section, batch: int, context: int, backend: str) -> Row:
    q, kv, read = _drawn(section, batch, context)
    row: Row = {"batch": batch, "tokens": context, "peer": f"sdpa {backend}"}
    with others.recorded(row, backend):
        chosen = others.sdpa_backends()[backend]
        calls = [others.sdpa(q, keys, values, chosen, causal=False) for keys, values in kv]
        took = timed(calls, seconds=0.1, graph=True)
        row |= {**took.figures(), "bytes_per_s": read / took.median_s}
    return row


def _flashinfer(section: Section, batch: int, context: int) -> Row:
    q, kv, read = _drawn(section, batch, context)
    row: Row = {"batch": batch, "tokens": context, "peer": "flashinfer"}
    with others.recorded(row, "flashinfer"):
        first = partial(others.flashinfer_decode, q[:, :, 0], kv[0][0], kv[0][1], PIECE)
        row["compile_s"] = others.first_call_s(first)
        calls = [
            others.flashinfer_decode(q[:, :, 0], keys, values, PIECE) for keys, values in kv[:8]
        ]
        took = timed(calls, seconds=0.1)
        row |= {**took.figures(), "bytes_per_s": read / took.median_s}
    return row


def _drawn(
    section: Section, batch: int, context: int
) -> tuple[torch.Tensor, list[list[torch.Tensor]], int]:
    """q, sets of keys and values of `batch` contiguous sequences, and the bytes of one set."""
    shape = TINY if section.tiny else LLAMA_8B
    dtype, device = usual_dtype(section.device), section.device
    read = 2 * dtype.itemsize * shape.kv_heads * context * shape.head_dim * batch
    size = (batch, shape.kv_heads, context, shape.head_dim)
    q = torch.randn(batch, shape.query_heads, 1, shape.head_dim, device=device, dtype=dtype)
    kv = [
        [torch.randn(size, device=device, dtype=dtype) for _ in range(2)]
        for _ in range(rotation(read))
    ]
    return q, kv, read
