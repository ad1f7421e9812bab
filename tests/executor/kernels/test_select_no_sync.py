"""Tensors without values show that nothing on the GPU's path asks the device for one, and that what
is as large as scores passes through kernels alone."""

from dataclasses import fields, replace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from executor.attention.lists import lay_out
from executor.kernels.batch import Cache, Chunk
from executor.kernels.bounds import page_bounds, update_page_bounds
from executor.kernels.decode_layout import DecodeHeads, lay_out_decode
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import Pooled, Rule, Sampled, VerticalSlash
from executor.kernels.recovery import decode_recovery, recovery
from executor.kernels.select import select
from executor.kernels.select_decode import select_decode
from executor.kernels.triton import bounds, lines, means, rule_lists, scores, top_pieces
from executor.kernels.triton import select_decode as decode_selection

from .reference import random_cache, random_q

SIZE, DIM = 8, 16
PATTERNS = [Pooled(), VerticalSlash(9, 2), Sampled(), Rule.sink_local(), Rule.strided(2, 3)]
CHUNKS = (Chunk(20, 41), Chunk(0, 61))
KERNELS = {
    bounds: ["page_bounds_kernel"],
    means: ["key_means_kernel", "query_means_kernel"],
    scores: ["piece_sums_kernel", "piece_lse_kernel"],
    lines: ["parts_kernel", "lines_kernel"],
    top_pieces: ["pooled_lists_kernel", "line_lists_kernel", "sampled_lists_kernel"],
    rule_lists: ["rule_lists_kernel"],
    decode_selection: ["piece_scores_kernel", "best_kernel", "rule_kernel"],
}


@pytest.fixture
def launched(monkeypatch):
    """Names of the kernels that would have run; none does."""
    names = []
    for module, kernels in KERNELS.items():
        for name in kernels:
            launcher = Launcher(name, names)
            monkeypatch.setattr(module, name, launcher)
    return names


class Launcher:
    def __init__(self, name, names):
        self.name, self.names = name, names

    def __getitem__(self, grid):
        assert all(type(size) is int and size > 0 for size in grid)
        return lambda *_, **__: self.names.append(self.name)


def without_values(mode, thing):
    """A dataclass whose tensors have shapes alone."""
    tensors = {f.name: getattr(thing, f.name) for f in fields(thing)}
    found = {n: mode.from_tensor(x) for n, x in tensors.items() if isinstance(x, torch.Tensor)}
    return replace(thing, **found)


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("per_block", [1, 2])
def test_selection_and_recovery_of_a_prefill_read_nothing_back(launched, paged, per_block):
    patterns = PATTERNS if per_block == 1 else PATTERNS[:-1]
    first, last = 3 // per_block, 8 // per_block
    heads = [HeadBlocks(h, 0, 3, first, last, s, p) for s in (0, 1) for h, p in enumerate(patterns)]
    with FakeTensorMode() as mode:
        with pytest.raises(DataDependentOutputException):
            torch.zeros(3).max().item()
        q = mode.from_tensor(random_q(CHUNKS, len(PATTERNS), DIM))
    layout = lay_out(heads, CHUNKS, SIZE * per_block, piece_tokens=SIZE)
    cache = random_cache(CHUNKS, 2, DIM, SIZE, paged=paged)
    layout, cache = without_values(mode, layout), without_values(mode, cache)
    with mode:
        indices = select(q, cache, layout, use_triton=True)
        found = recovery(q, cache, layout, torch.zeros(q.shape[:2]), 4, use_triton=True)
    assert indices.shape == (layout.stored,)
    assert found.shape == (len(heads),)
    wanted = ["key_means_kernel", "query_means_kernel", "piece_sums_kernel", "piece_lse_kernel"]
    lists = [
        "pooled_lists_kernel",
        "parts_kernel",
        "lines_kernel",
        "line_lists_kernel",
        "sampled_lists_kernel",
        "rule_lists_kernel",
    ]
    assert set(launched) == {*wanted, *lists}


def test_selection_and_recovery_of_a_decode_read_nothing_back(launched):
    lists = [DecodeHeads(s, s, 0, (0, 1), 3, (0.0, 0.5), p) for p in PATTERNS for s in (0, 1)]
    layout = lay_out_decode(lists, 9, SIZE)
    cache = random_cache(CHUNKS, 2, DIM, SIZE, paged=True)
    mode = FakeTensorMode()
    layout, cache = without_values(mode, layout), without_values(mode, cache)
    q = mode.from_tensor(random_q(CHUNKS, 2, DIM))
    context = mode.from_tensor(torch.tensor([61, 61], dtype=torch.int32))
    with mode:
        bounds = page_bounds(cache, context, use_triton=True)
        update_page_bounds(cache, bounds, context, use_triton=True)
        found = select_decode(q, bounds, cache, layout, context, use_triton=True)
        lse = torch.zeros(q.shape[:2])
        shares = decode_recovery(q, cache, layout, context, lse, use_triton=True)
    assert found.indices.shape == (layout.stored,)
    assert shares.shape == (len(lists),)
    # Pooled and vertical-slash entries choose in one launch.
    chosen = ["piece_scores_kernel", "best_kernel", "rule_kernel", "rule_kernel"]
    bounded = ["page_bounds_kernel", "page_bounds_kernel"]
    assert launched == [*bounded, *chosen, "piece_sums_kernel", "piece_lse_kernel"]


class LargestPass(TorchDispatchMode):
    """How many bytes the largest tensor has that torch reads or writes, but for making it."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **kwargs or {})
        made = function is torch.ops.aten.empty.memory_format
        if function.namespace == "aten" and not made and not function.is_view:
            every = tree_leaves((args, kwargs, found))
            sizes = [x.numel() * x.itemsize for x in every if isinstance(x, torch.Tensor)]
            self.most = max(self.most, *sizes, 0)
        return found


@pytest.mark.parametrize(
    ("pattern", "rows"), [(Pooled(), 1024), (VerticalSlash(), 64), (Sampled(), 8 * 1024)]
)
def test_no_scores_pass_through_torch(launched, pattern, rows):
    """Of 8 heads' 65,536 tokens; `rows` are scored of each."""
    chunks, block, piece = (Chunk(0, 65536),), 64, 16
    heads = [HeadBlocks(h, 0, 400, 0, 1024, 0, pattern) for h in range(8)]
    layout, mode = lay_out(heads, chunks, block, piece_tokens=piece), FakeTensorMode()
    with mode:
        q, keys = torch.empty(8, 65536, DIM), torch.empty(1, 65536, DIM)
        cache = Cache(keys, keys, starts=torch.zeros(1, dtype=torch.int32))
    layout = without_values(mode, layout)
    with mode, LargestPass() as passes:
        select(q, cache, layout, use_triton=True)
    assert launched
    # Tables of lists, rows and lines are smaller than what all rows give to all pieces.
    assert 0 < passes.most <= 4 * len(heads) * rows * layout.grid(0).pieces / 16
