"""Every kernel against float64 on the chip that is there, in the types that models are served in.

Ragged prompts and chunks with cached prefixes, contiguous and in pages of one piece and of several,
parts of heads, two heads in a program, cut lists, a share of the multiprocessors, every pattern;
decode of packed groups, single heads and parts of lists; a mixed step; selection in Triton beside
torch; recovery. Outputs are NaN before, and what nobody computes must still be. A row is `ok` where
its error is below its type's limit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from secrets import randbits

import torch

from benchmarks.gpu.check_scenes import decode_lists, decoding, paired_heads, prompts, shares
from benchmarks.gpu.check_step import mixed_step
from benchmarks.gpu.check_units import POINTERS, PREFILL, REST, SETTINGS, TINY_SETTINGS, TWINS
from benchmarks.gpu.oracle import (
    allowed_pieces,
    decode_oracle,
    listed_pieces,
    prefill_oracle,
    relative_error,
)
from benchmarks.gpu.rows import Row
from benchmarks.gpu.scene import Shape, Tensors, Tile, drawn, multiprocessors, programs
from benchmarks.gpu.section import Section
from executor.attention.block_sparse import allowed_tma
from executor.attention.lists import lay_out
from executor.kernels.batch import Chunk
from executor.kernels.bounds import page_bounds, update_page_bounds
from executor.kernels.decode_layout import DecodeLayout, lay_out_decode
from executor.kernels.layout import PACKED_ROWS, Layout
from executor.kernels.recovery import decode_recovery, recovery
from executor.kernels.select import select
from executor.kernels.select_decode import select_decode
from executor.kernels.triton.decode import decode_attention
from executor.kernels.triton.prefill import prefill_attention

LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
LSE_LIMIT = 1e-3
RECOVERY_LIMIT = 1e-2
AGREEMENT = 0.98
"""Share of chosen pieces that two selections must have in common: sums round differently."""


DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
HEADS = {128: (8, 2), 64: (7, 7), 256: (8, 1), 16: (4, 2)}
"""Query and KV heads by head_dim: groups of four, of one, one for all."""
BLOCKS, TINY_BLOCKS = 19, 5
CUT_BLOCKS = 8
"""Of a prompt whose longest lists are cut, at least."""
CASE_S = 60.0
"""A process's first case waits while all of them start on the GPU."""
Case = tuple[str, Callable[[], Row]]


@dataclass(frozen=True)
class Setting:
    """What kernels are compiled for, and how long a prompt is in blocks."""

    name: str
    dtype: torch.dtype
    tile: Tile
    shape: Shape
    blocks: int

    @classmethod
    def of(cls, name: str) -> "Setting":
        """As in `bf16-d128-64x16`."""
        dtype, head_dim, tile = name.split("-")
        dim = int(head_dim[1:])
        blocks = TINY_BLOCKS if name in TINY_SETTINGS else BLOCKS
        return cls(name, DTYPES[dtype], Tile.of(tile), Shape(*HEADS[dim], dim), blocks)

    @property
    def several(self) -> int:
        """Tokens of a page that holds several pieces."""
        return max(64, 2 * self.tile.piece)

    @property
    def pairs_heads(self) -> bool:
        """Whether two heads that share a list share a program."""
        return self.shape.group_size > 1 and 2 * self.tile.block <= PACKED_ROWS


def settings(tiny: bool) -> list[Setting]:
    return [Setting.of(name) for name in (TINY_SETTINGS if tiny else SETTINGS)]


def run(section: Section, unit: str) -> None:
    """`unit`: a setting, or a part of one (`check_units`)."""
    *setting, last = unit.split("-")
    part = last if last in (PREFILL, POINTERS, REST) else None
    chosen = Setting.of("-".join(setting) if part else unit)
    for name, call in cases(chosen, section.device, section.tiny, part):
        section.attempt(f"{chosen.name} {name}", call, CASE_S)


def cases(
    setting: Setting, device: torch.device, tiny: bool, part: str | None = None
) -> Iterator[Case]:
    if part == POINTERS:
        for page, twin in zip((0, setting.tile.piece), TWINS, strict=True):
            yield f"{twin} by pointers", partial(_prefill, setting, device, page, tma=False)
    if part in (None, PREFILL):
        yield from _prefill_cases(setting, device, tiny)
    if part in (None, REST):
        yield from _other_cases(setting, device, tiny)


def _prefill_cases(setting: Setting, device: torch.device, tiny: bool) -> Iterator[Case]:
    pages = (0, setting.tile.piece)
    contiguous, paged = (partial(_prefill, setting, device, each) for each in pages)
    yield from zip(TWINS, (contiguous, paged), strict=True)
    at_once = programs(device, setting.tile, setting.shape.head_dim, setting.dtype.itemsize)
    longer = replace(setting, blocks=max(setting.blocks, CUT_BLOCKS))
    yield "prefill cut lists", partial(_prefill, longer, device, pages[1], at_once=at_once)
    if setting.pairs_heads:
        yield "prefill two heads contiguous", partial(_two_heads, setting, device, 0)
        yield "prefill two heads paged", partial(_two_heads, setting, device, setting.tile.piece)
    yield (
        f"prefill pages of {setting.several}",
        partial(_prefill, setting, device, setting.several),
    )
    if not tiny:
        yield "prefill large logits", partial(paged, scale=30.0)
        quarter = multiprocessors(device) // 4
        yield "prefill on a quarter", partial(contiguous, sms=quarter)
        yield "prefill cut on a quarter", partial(paged, at_once=at_once, sms=quarter)


def _other_cases(setting: Setting, device: torch.device, tiny: bool) -> Iterator[Case]:
    piece, several = setting.tile.piece, setting.several
    yield "decode", partial(_decode, setting, device, piece)
    yield "selection", partial(_selection, setting, device, piece)
    yield f"decode pages of {several}", partial(_decode, setting, device, several)
    if setting.tile.per_block > 1:
        yield "selection contiguous", partial(_selection, setting, device, 0)
        yield f"selection pages of {several}", partial(_selection, setting, device, several)
    if not tiny:
        yield "decode large logits", partial(_decode, setting, device, piece, scale=30.0)
        quarter = multiprocessors(device) // 4
        yield "decode on a quarter", partial(_decode, setting, device, piece, sms=quarter)
        yield "decode in a graph", partial(_replayed, setting, device)
    yield "recovery", partial(_recovery, setting, device)
    page_tokens = several if setting.tile.per_block > 1 else piece
    step = partial(mixed_step, setting.shape, setting.tile, page_tokens, setting.dtype, device)
    yield "mixed step", partial(step, LIMITS[setting.dtype])


def _tensors(
    setting: Setting,
    chunks: tuple[Chunk, ...],
    device: torch.device,
    page_tokens: int,
    scale: float = 1.0,
) -> Tensors:
    return drawn(
        setting.shape,
        chunks,
        device=device,
        dtype=setting.dtype,
        page_tokens=page_tokens,
        seed=randbits(31),
        scale=scale,
        gaps=True,
    )


def _drawn(
    setting: Setting,
    device: torch.device,
    page_tokens: int,
    scale: float = 1.0,
    at_once: int | None = None,
) -> tuple[Tensors, Layout]:
    chunks = prompts(setting.tile.block, setting.blocks)
    tensors = _tensors(setting, chunks, device, page_tokens, scale)
    heads = shares(setting.shape, chunks, setting.tile)
    block, piece = setting.tile
    return tensors, lay_out(heads, chunks, block, device, at_once, piece)


def _prefill(
    setting: Setting,
    device: torch.device,
    page_tokens: int,
    *,
    scale: float = 1.0,
    at_once: int | None = None,
    sms: int | None = None,
    tma: bool | None = None,
) -> Row:
    """`tma`: False loads by pointers; None as the chip and HPLB_TMA say."""
    tensors, layout = _drawn(setting, device, page_tokens, scale, at_once)
    row = _attended(setting, tensors, layout, sms, allowed_tma() if tma is None else tma)
    return row | {"ok": row["ok"] and (at_once is None or layout.splits > 0)}


def _two_heads(setting: Setting, device: torch.device, page_tokens: int) -> Row:
    """Heads of a group that share a list, two to a program."""
    chunks = prompts(setting.tile.block, setting.blocks)
    tensors = _tensors(setting, chunks, device, page_tokens)
    heads = paired_heads(setting.shape, chunks, setting.tile)
    block, piece = setting.tile
    layout = lay_out(heads, chunks, block, device, piece_tokens=piece, pack=True)
    row = _attended(setting, tensors, layout, None, allowed_tma())
    paired = {layout.heads[x].pattern for x in layout.entry[layout.pairs.long().flatten()].tolist()}
    return row | {"ok": row["ok"] and len(paired) == len({x.pattern for x in heads})}


def _attended(
    setting: Setting, tensors: Tensors, layout: Layout, sms: int | None, tma: bool | None
) -> Row:
    indices = select(tensors.q, tensors.cache, layout)
    prefill_attention(tensors.q, tensors.cache, layout, indices, tensors.out, tensors.lse, sms, tma)
    wanted = prefill_oracle(tensors.q, tensors.cache, layout, indices)
    counts = {"tiles": layout.tiles, "pairs": len(layout.pairs), "splits": layout.splits}
    return _judged(setting, tensors, wanted) | counts


def _judged(setting: Setting, tensors: Tensors, wanted: tuple[torch.Tensor, torch.Tensor]) -> Row:
    error = relative_error(tensors.out, wanted[0])
    lse_error = relative_error(tensors.lse, wanted[1])
    fine = error <= LIMITS[setting.dtype] and lse_error <= LSE_LIMIT
    return {"relative_error": error, "lse_error": lse_error, "ok": fine}


def _selection(setting: Setting, device: torch.device, page_tokens: int) -> Row:
    """Triton's lists beside torch's: promises kept, and nearly all pieces in common."""
    tensors, layout = _drawn(setting, device, page_tokens)
    found, wanted = (
        select(tensors.q, tensors.cache, layout, use_triton=triton) for triton in (True, False)
    )
    pieces = max(layout.grid(sequence).pieces for sequence in range(len(layout.chunks)))
    ours, theirs = (
        allowed_pieces(layout, indices, 0, layout.lists, pieces) for indices in (found, wanted)
    )
    kept = bool((ours.sum(1) == layout.length).all())
    first, last = (x[:, None] for x in layout.own_pieces(slice(None)))
    piece = torch.arange(pieces, device=device)
    own = bool((ours | (piece < first) | (piece > last)).all())
    agreement = float((ours & theirs).sum() / theirs.sum())
    sorted_lists = _ascending(layout, found)
    return {
        "lengths_kept": kept,
        "own_pieces_in": own,
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
    tensors, layout = _drawn(setting, device, setting.tile.piece)
    indices = select(tensors.q, tensors.cache, layout)
    x = tensors
    prefill_attention(x.q, x.cache, layout, indices, x.out, x.lse, tma=allowed_tma())
    found, torched = (
        recovery(tensors.q, tensors.cache, layout, tensors.lse, 4, use_triton=triton)
        for triton in (True, False)
    )
    error = float((found.double() - torched.double()).abs().max())
    least, most = float(found.min()), float(found.max())
    fine = error <= RECOVERY_LIMIT and 0 < least <= most <= 1
    return {"relative_error": error, "least": least, "most": most, "ok": fine}


def _decode(
    setting: Setting,
    device: torch.device,
    page_tokens: int,
    *,
    scale: float = 1.0,
    sms: int | None = None,
) -> Row:
    chunks = decoding(setting.blocks, setting.tile.block)
    tensors = _tensors(setting, chunks, device, page_tokens, scale)
    layout = _decode_layout(setting, len(chunks), device)
    contexts = [chunk.total_tokens for chunk in chunks]
    context = torch.tensor(contexts, dtype=torch.int32, device=device)
    bounds, exact = (
        page_bounds(tensors.cache, context, setting.tile.piece, use_triton=triton)
        for triton in (True, False)
    )
    lists, torched = (
        select_decode(tensors.q, bounds, tensors.cache, layout, context, use_triton=triton)
        for triton in (True, False)
    )
    ours, theirs = (listed_pieces(layout, each) for each in (lists, torched))
    chosen = {
        "bounds_agree": torch.equal(bounds, exact),
        "counts_agree": torch.equal(lists.count, torched.count),
        "agreement": float((ours & theirs).sum() / theirs.sum()),
    }
    # Large logits leave nearly all pieces without weight, and any of those is as good as another.
    alike = chosen["agreement"] >= AGREEMENT or scale != 1.0
    decode_attention(
        tensors.q, tensors.cache, layout, lists, context, tensors.out, tensors.lse, sms
    )
    wanted = decode_oracle(tensors.q, tensors.cache, layout, lists, context)
    captured = [
        decode_recovery(tensors.q, tensors.cache, layout, context, tensors.lse, use_triton=triton)
        for triton in (True, False)
    ]
    gap = float((captured[0] - captured[1]).abs().max())
    row = _judged(setting, tensors, wanted) | chosen | {"recovery_gap": gap}
    fine = chosen["bounds_agree"] and chosen["counts_agree"] and alike and gap <= RECOVERY_LIMIT
    return row | {"ok": row["ok"] and fine}


def _decode_layout(setting: Setting, sequences: int, device: torch.device) -> DecodeLayout:
    tile = setting.tile
    lists = decode_lists(setting.shape, sequences, tile)
    return lay_out_decode(lists, (setting.blocks + 1) * tile.per_block, tile.piece, device)


def _replayed(setting: Setting, device: torch.device) -> Row:
    """A captured step, replayed after its context has grown by a token, on other numbers."""
    chunks, piece = decoding(setting.blocks, setting.tile.block)[:2], setting.tile.piece
    grown = drawn(
        setting.shape, chunks, device=device, dtype=setting.dtype, page_tokens=piece, seed=1
    )
    layout = _decode_layout(setting, len(chunks), device)
    contexts = [chunk.total_tokens - 1 for chunk in chunks]
    context = torch.tensor(contexts, dtype=torch.int32, device=device)
    bounds = page_bounds(grown.cache, context, piece)

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
