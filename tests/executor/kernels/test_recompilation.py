"""What a kernel is compiled for must not change with lengths, batches or patterns' parameters.

Triton compiles anew for every integer that is 1 or divisible by 16 or neither, and for every
pointer that is aligned or not; that takes seconds, in the path of a request.
"""

from dataclasses import replace

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from executor.attention.lists import lay_out
from executor.kernels.batch import Chunk
from executor.kernels.bounds import page_bounds, update_page_bounds
from executor.kernels.decode_layout import DecodeHeads, lay_out_decode
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import Pooled, Rule, Sampled, VerticalSlash
from executor.kernels.recovery import decode_recovery, recovery
from executor.kernels.select import select
from executor.kernels.select_decode import select_decode
from executor.kernels.triton import (
    bounds,
    decode,
    lines,
    means,
    merge,
    rule_lists,
    scores,
    top_pieces,
)
from executor.kernels.triton import select_decode as decode_selection

from .reference import contexts, random_cache, random_q, transposed_table

SIZE, DIM = 16, 16
KERNELS = {
    decode: ["decode_kernel"],
    merge: ["merge_kernel"],
    bounds: ["page_bounds_kernel"],
    means: ["key_means_kernel", "query_means_kernel"],
    scores: ["piece_sums_kernel", "piece_lse_kernel"],
    lines: ["parts_kernel", "lines_kernel"],
    top_pieces: ["pooled_lists_kernel", "line_lists_kernel", "sampled_lists_kernel"],
    rule_lists: ["rule_lists_kernel"],
    decode_selection: ["piece_scores_kernel", "best_kernel", "rule_kernel"],
}


class Launcher:
    """Stands for a kernel: notes what a GPU would compile it for and does not run it."""

    def __init__(self, kernel, compiled):
        function = JITFunction(kernel.fn, **kernel.kwargs)
        backend = make_backend(GPUTarget("cuda", 90, 32))
        self.bind = create_function_from_signature(function.signature, function.params, backend)
        self.name, self.compiled = kernel.fn.__name__, compiled

    def __getitem__(self, grid):
        return self.note

    def note(self, *arguments, **options):
        parameters, keys, _ = self.bind(*arguments, **options)
        key = dict(zip(parameters, map(str, keys), strict=True))
        self.compiled.setdefault(self.name, []).append(key)


@pytest.fixture
def compiled(monkeypatch):
    """Per kernel, what every launch was compiled for: {parameter: key}."""
    found = {}
    for module, kernels in KERNELS.items():
        for name in kernels:
            monkeypatch.setattr(module, name, Launcher(getattr(module, name), found))
    return found


def assert_one_of_each(compiled, *free):
    """Every kernel has one key, but for parameters that are `free`."""
    for name, keys in compiled.items():
        assert len(keys) > 1, name
        for parameter in keys[0].keys() - set(free):
            assert len({key[parameter] for key in keys}) == 1, (name, parameter)


def off_by(items, x):
    """x, starting `items` elements into its memory."""
    room = torch.zeros(items + x.numel(), dtype=x.dtype)
    return room[items:].view(x.shape).copy_(x)


# 1, odd and a multiple of 16: sequences, blocks, heads and parameters.
PREFILLS = [
    ((Chunk(0, 130),), VerticalSlash(8, 2), Rule.strided(1, 1, 0), Rule.sink_local(1)),
    (
        (Chunk(40, 85), Chunk(0, 200), Chunk(0, 16)),
        VerticalSlash(16, 1),
        Rule.strided(3, 7, 5),
        None,
    ),
    ((Chunk(0, 256),) * 16, VerticalSlash(5, 3), Rule.strided(16, 16, 0), Rule.sink_local(16)),
]


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("per_block", [1, 2])
def test_prefills_of_other_lengths_and_patterns_compile_nothing_anew(compiled, paged, per_block):
    block = SIZE * per_block
    for chunks, slash, strided, sink in PREFILLS:
        patterns = [
            Pooled(),
            slash,
            sink or Pooled(),
            strided if per_block == 1 else Rule.sink_local(3),
        ]
        heads = [
            HeadBlocks(h, 0, 2, c.cached_tokens // block, -(-c.total_tokens // block), s, p)
            for h, p in enumerate(patterns)
            for s, c in enumerate(chunks)
        ]
        q = random_q(chunks, 4, DIM)
        cache = random_cache(chunks, 2, DIM, SIZE, paged=paged)
        if not paged:
            cache = replace(cache, starts=off_by(len(chunks), cache.starts))
        elif len(chunks) == 3:
            cache = transposed_table(cache)
        layout = lay_out(heads, chunks, block, piece_tokens=SIZE)
        select(q, cache, layout, use_triton=True)
        for samples in (1, 5, 16):
            recovery(q, cache, layout, torch.zeros(q.shape[:2]), samples, use_triton=True)
    assert set(compiled) == {
        "key_means_kernel",
        "query_means_kernel",
        "pooled_lists_kernel",
        "piece_sums_kernel",
        "piece_lse_kernel",
        "parts_kernel",
        "lines_kernel",
        "line_lists_kernel",
        "rule_lists_kernel",
    }
    assert_one_of_each(compiled)


def test_sampled_prefills_of_other_lengths_and_rows_compile_nothing_anew(compiled):
    for chunks, rows in (
        ((Chunk(0, 1040),), 1),
        ((Chunk(0, 16 * SIZE), Chunk(1000, 56), Chunk(0, 77 * SIZE + 5)), 5),
        ((Chunk(0, 1280),) * 16, 16),
    ):
        heads = [
            HeadBlocks(
                0, 0, 2, c.cached_tokens // SIZE, -(-c.total_tokens // SIZE), s, Sampled(rows)
            )
            for s, c in enumerate(chunks)
        ]
        q, cache = random_q(chunks, 1, DIM), random_cache(chunks, 1, DIM, SIZE, paged=True)
        select(q, cache, lay_out(heads, chunks, SIZE), use_triton=True)
    assert set(compiled) == {"piece_sums_kernel", "sampled_lists_kernel"}
    assert_one_of_each(compiled)


def test_decodes_of_other_batches_lengths_and_shares_compile_nothing_anew(compiled):
    for batch, blocks, widest, rules in (
        (1, 1, 1, [Rule.sink_local(1), Rule.strided(1, 1, 0)]),
        (3, 8, 3, [Rule.sink_local(5), Rule.strided(16, 7, 3)]),
        (4, 15, 4, [Rule.sink_local(16), Rule.strided(5, 16, 0)]),
    ):
        chunks = (Chunk(blocks * SIZE - 1, 1),) * batch
        q, cache = random_q(chunks, 4, DIM), random_cache(chunks, 2, DIM, SIZE, paged=True)
        cache = replace(cache, pages=off_by(batch, cache.pages))
        context = off_by(batch, contexts(chunks))
        heads = tuple(range(widest))
        lists = [
            DecodeHeads(s, s, 0, heads, 1, pattern=p)
            for p in (Pooled(), *rules, Pooled())
            for s in range(batch)
        ]
        layout = lay_out_decode(lists, blocks + 1, SIZE)
        bounds = page_bounds(cache, context, use_triton=True)
        update_page_bounds(cache, bounds, context, use_triton=True)
        chosen = select_decode(q, bounds, cache, layout, context, use_triton=True)
        select_decode(q, bounds, transposed_table(cache), layout, context, use_triton=True)
        page_bounds(transposed_table(cache), context, use_triton=True)
        out, lse = torch.empty_like(q), torch.zeros(q.shape[:2])
        decode.decode_attention(q, cache, layout, chosen, context, out, lse)
        # As prefill does where it cuts lists.
        rows = torch.zeros(batch, SIZE, dtype=torch.int32)
        merge.merge(out, lse, rows, rows, rows, out, lse)
        decode_recovery(q, cache, layout, context, lse, use_triton=True)
    assert {"decode_kernel", "merge_kernel", "best_kernel", "rule_kernel"} < set(compiled)
    # Loops over as many rows as the widest of the model's groups has; bounds of every page.
    assert_one_of_each(compiled, "WIDEST", "NEWEST")
