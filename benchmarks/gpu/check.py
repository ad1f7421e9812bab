"""Every kernel against float64 on the chip that is there: bf16, fp16, fp32; 64, 128, 256; 64, 128.

Ragged prompts and chunks with cached prefixes, contiguous and paged, parts of heads, cut lists, a
share of the multiprocessors, every pattern; decode of packed groups, single heads and parts of
lists; a mixed step; selection in Triton beside torch; recovery. Outputs are NaN before, and what
nobody computes must still be. A row is `ok` where its error is below its type's limit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from secrets import randbits

import torch

from benchmarks.gpu.check_scenes import decode_lists, decoding, prompts, shares
from benchmarks.gpu.check_step import mixed_step
from benchmarks.gpu.oracle import allowed_blocks, decode_oracle, prefill_oracle, relative_error
from benchmarks.gpu.scene import PROGRAMS, Shape, Tensors, drawn
from benchmarks.gpu.section import Row, Section
from executor.kernels.batch import Chunk
from executor.kernels.bounds import page_bounds, update_page_bounds
from executor.kernels.decode_layout import lay_out_decode
from executor.kernels.layout import Layout, lay_out
from executor.kernels.recovery import decode_recovery, recovery
from executor.kernels.select import select
from executor.kernels.select_decode import select_decode
from executor.kernels.triton.decode import decode_attention
from executor.kernels.triton.prefill import prefill_attention

LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
LSE_LIMIT = 1e-3
RECOVERY_LIMIT = 1e-2
AGREEMENT = 0.98
"""Share of chosen blocks that two selections must have in common: sums round differently."""


@dataclass(frozen=True)
class Setting:
    dtype: torch.dtype
    head_dim: int
    block: int
    shape: Shape
    blocks: int

    @property
    def name(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} d{self.head_dim} b{self.block}"


def settings(tiny: bool) -> list[Setting]:
    if tiny:
        return [Setting(torch.float32, 16, 16, Shape(4, 2, 16), 8)]
    return [
        Setting(dtype, head_dim, block, Shape(heads, groups, head_dim), 19)
        for dtype in (torch.bfloat16, torch.float16, torch.float32)
        for head_dim, heads, groups in ((128, 8, 2), (64, 7, 7), (256, 8, 1))
        for block in (64, 128)
    ]


def run(section: Section, part: int = 0, parts: int = 1) -> None:
    """Every `parts`-th setting from `part` on: processes share the compiling."""
    for setting in settings(section.tiny)[part::parts]:
        for name, call in cases(setting, section.device, section.tiny):
            section.attempt(f"{setting.name} {name}", call)


def cases(
    setting: Setting, device: torch.device, tiny: bool
) -> Iterator[tuple[str, Callable[[], Row]]]:
    for paged in (False, True):
        where = "paged" if paged else "contiguous"
        for scale in (1.0, 30.0) if paged and not tiny else (1.0,):
            name = f"prefill {where}{' large logits' if scale > 1 else ''}"
            yield name, partial(_prefill, setting, device, paged, scale, None, None)
    yield "prefill cut lists", partial(_prefill, setting, device, True, 1.0, PROGRAMS, None)
    if not tiny:
        yield "prefill on 33", partial(_prefill, setting, device, False, 1.0, None, 33)
        yield "prefill cut on 33", partial(_prefill, setting, device, True, 1.0, PROGRAMS, 33)
    yield "selection", partial(_selection, setting, device)
    yield "recovery", partial(_recovery, setting, device)
    yield "decode", partial(_decode, setting, device, 1.0, None)
    step = (setting.shape, setting.block, setting.dtype, device, LIMITS[setting.dtype])
    yield "mixed step", partial(mixed_step, *step)
    if not tiny:
        yield "decode large logits", partial(_decode, setting, device, 30.0, None)
        yield "decode on 33", partial(_decode, setting, device, 1.0, 33)
        yield "decode in a graph", partial(_replayed, setting, device)


def _tensors(
    setting: Setting, chunks: tuple[Chunk, ...], device: torch.device, paged: bool, scale: float
) -> Tensors:
    return drawn(
        setting.shape,
        chunks,
        setting.block,
        device=device,
        dtype=setting.dtype,
        paged=paged,
        seed=randbits(31),
        scale=scale,
        gaps=True,
    )


def _drawn(
    setting: Setting, device: torch.device, paged: bool, scale: float, programs: int | None
) -> tuple[Tensors, Layout]:
    chunks = prompts(setting.block, setting.blocks)
    tensors = _tensors(setting, chunks, device, paged, scale)
    heads = shares(setting.shape, chunks, setting.block)
    return tensors, lay_out(heads, chunks, setting.block, device, programs)


def _prefill(
    setting: Setting,
    device: torch.device,
    paged: bool,
    scale: float,
    programs: int | None,
    sms: int | None,
) -> Row:
    tensors, layout = _drawn(setting, device, paged, scale, programs)
    indices = select(tensors.q, tensors.cache, layout)
    prefill_attention(tensors.q, tensors.cache, layout, indices, tensors.out, tensors.lse, sms=sms)
    wanted = prefill_oracle(tensors.q, tensors.cache, layout, indices)
    row = _judged(setting, tensors, wanted) | {"tiles": layout.tiles, "splits": layout.splits}
    return row | {"ok": row["ok"] and (programs is None or layout.splits > 0)}


def _judged(setting: Setting, tensors: Tensors, wanted: tuple[torch.Tensor, torch.Tensor]) -> Row:
    error = relative_error(tensors.out, wanted[0])
    lse_error = relative_error(tensors.lse, wanted[1])
    fine = error <= LIMITS[setting.dtype] and lse_error <= LSE_LIMIT
    return {"error": error, "lse_error": lse_error, "ok": fine}


def _selection(setting: Setting, device: torch.device) -> Row:
    """Triton's lists beside torch's: promises kept, and nearly all blocks in common."""
    tensors, layout = _drawn(setting, device, True, 1.0, None)
    found, wanted = (
        select(tensors.q, tensors.cache, layout, use_triton=triton) for triton in (True, False)
    )
    blocks = max(-(-chunk.total_tokens // setting.block) for chunk in layout.chunks)
    ours, theirs = (
        allowed_blocks(layout, indices, 0, layout.lists, blocks) for indices in (found, wanted)
    )
    length, row = layout.length.long(), layout.query_block.long()
    kept = bool((ours.sum(1) == length).all())
    own = bool(ours.gather(1, row[:, None]).all())
    agreement = float((ours & theirs).sum() / theirs.sum())
    sorted_lists = _ascending(layout, found)
    return {
        "lengths_kept": kept,
        "own_block_in": own,
        "ascending": sorted_lists,
        "agreement": agreement,
        "ok": kept and own and sorted_lists and agreement >= AGREEMENT,
    }


def _ascending(layout: Layout, indices: torch.Tensor) -> bool:
    """Whether every stored list rises."""
    begins = torch.zeros(len(indices) + 1, dtype=torch.bool, device=indices.device)
    stored = layout.start >= 0
    begins[layout.start[stored].long()] = True
    return bool(((indices[1:] > indices[:-1]) | begins[1:-1]).all())


def _recovery(setting: Setting, device: torch.device) -> Row:
    """By Triton beside torch."""
    tensors, layout = _drawn(setting, device, True, 1.0, None)
    indices = select(tensors.q, tensors.cache, layout)
    prefill_attention(tensors.q, tensors.cache, layout, indices, tensors.out, tensors.lse)
    found, torched = (
        recovery(tensors.q, tensors.cache, layout, tensors.lse, 4, use_triton=triton)
        for triton in (True, False)
    )
    error = float((found.double() - torched.double()).abs().max())
    least, most = float(found.min()), float(found.max())
    fine = error <= RECOVERY_LIMIT and 0 < least <= most <= 1
    return {"error": error, "least": least, "most": most, "ok": fine}


def _decode(setting: Setting, device: torch.device, scale: float, sms: int | None) -> Row:
    chunks = decoding(setting.blocks, setting.block)
    tensors = _tensors(setting, chunks, device, True, scale)
    layout = lay_out_decode(
        decode_lists(setting.shape, len(chunks)), setting.blocks + 1, setting.block, device
    )
    contexts = [chunk.total_tokens for chunk in chunks]
    context = torch.tensor(contexts, dtype=torch.int32, device=device)
    bounds = page_bounds(tensors.cache, context)
    lists, torched = (
        select_decode(tensors.q, bounds, tensors.cache, layout, context, use_triton=triton)
        for triton in (True, False)
    )
    counts_agree = torch.equal(lists.count, torched.count)
    decode_attention(
        tensors.q, tensors.cache, layout, lists, context, tensors.out, tensors.lse, sms
    )
    wanted = decode_oracle(tensors.q, tensors.cache, layout, lists, context)
    captured = [
        decode_recovery(tensors.q, tensors.cache, layout, context, tensors.lse, use_triton=triton)
        for triton in (True, False)
    ]
    gap = float((captured[0] - captured[1]).abs().max())
    row = _judged(setting, tensors, wanted) | {"counts_agree": counts_agree, "recovery_gap": gap}
    return row | {"ok": row["ok"] and counts_agree and gap <= RECOVERY_LIMIT}


def _replayed(setting: Setting, device: torch.device) -> Row:
    """A captured step, replayed after its context has grown by a token, on other numbers."""
    chunks = decoding(setting.blocks, setting.block)[:2]
    grown = drawn(
        setting.shape, chunks, setting.block, device=device, dtype=setting.dtype, paged=True, seed=1
    )
    layout = lay_out_decode(
        decode_lists(setting.shape, len(chunks)), setting.blocks + 1, setting.block, device
    )
    contexts = [chunk.total_tokens - 1 for chunk in chunks]
    context = torch.tensor(contexts, dtype=torch.int32, device=device)
    bounds = page_bounds(grown.cache, context)

    def step() -> None:
        update_page_bounds(grown.cache, bounds, context)
        lists = select_decode(grown.q, bounds, grown.cache, layout, context)
        decode_attention(grown.q, grown.cache, layout, lists, context, grown.out, grown.lse)

    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    context += 1
    grown.q.copy_(torch.randn_like(grown.q))
    grown.out.fill_(torch.nan)
    grown.lse.fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    lists = select_decode(grown.q, bounds, grown.cache, layout, context)
    wanted = decode_oracle(grown.q, grown.cache, layout, lists, context)
    return _judged(setting, grown, wanted)
