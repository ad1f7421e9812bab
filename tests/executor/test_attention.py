from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.attention import (
    AttentionError,
    HeadShare,
    attend,
    resolve_backend,
    row_boundary,
)
from executor.kernels.select import causal_tiles
from profiles.architecture import Architecture
from profiles.cost.work import INDEX, Workload, head_work
from profiles.errors import HplbError, UnknownNameError

from .reference import random_qkv, reference, relative_error

backends = pytest.mark.parametrize("backend", ["torch", "triton"])


@backends
def test_result_is_attention_over_the_lists_it_returns(backend):
    q, k, v = random_qkv(4, 2, 150, 32)
    shares = [
        HeadShare(0, 0, 40),
        HeadShare(1, 0, 10_000),
        HeadShare(2, 1, 1, (0.25, 1.0)),
        HeadShare(3, 1, 64, (0.0, 0.5)),
    ]
    result = attend(q, k, v, shares, 16, backend)
    wanted, wanted_lse = reference(q, k, v, result.lists)
    assert relative_error(result.out, wanted) < 1e-5
    done = wanted_lse.isfinite()
    assert torch.equal(result.lse.isfinite(), done)
    assert (result.lse[~done] == -torch.inf).all()
    assert (result.out[~done] == 0).all()
    assert torch.allclose(result.lse[done].double(), wanted_lse[done], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.sampled_from([16, 64]), st.lists(st.integers(1, 400), max_size=3))
def test_counts_of_whole_heads_are_the_cost_models(tokens, block, budgets):
    q, k, v = random_qkv(max(1, len(budgets)), 1, tokens, 16)
    shares = [HeadShare(h, 0, budget) for h, budget in enumerate(budgets)]
    result = attend(q, k, v, shares, block, "torch")
    architecture = Architecture(layers=1, query_heads=1, kv_heads=1, head_dim=16, hidden_size=16)
    workload = Workload(context_tokens=tokens, block_tokens=block)
    work = head_work(np.array(budgets), architecture, workload).sum(axis=0)
    assert result.counts.query_blocks == work[INDEX["query_blocks"]]
    assert result.counts.tiles * 4 * block * block * 16 == work[INDEX["tile_flops"]]
    assert result.counts.scored_blocks == work[INDEX["scored_blocks"]]
    assert result.counts.tiles == len(result.lists.indices)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 400),
    st.integers(1, 30),
    st.lists(st.floats(0.001, 1.0), min_size=1, max_size=6),
)
def test_shares_of_a_head_meet_without_gap_and_add_up(tokens, budget_blocks, weights):
    edges = [0.0, *np.cumsum(weights) / np.sum(weights)]
    q, k, v = random_qkv(1, 1, tokens, 16)
    whole = HeadShare(0, 0, 16 * budget_blocks)
    shares = [replace(whole, rows=rows) for rows in pairwise(edges)]
    parts, once = (attend(q, k, v, some, 16, "torch") for some in (shares, [whole]))
    heads = parts.lists.heads
    assert heads[0].first == 0
    assert heads[-1].last == parts.lists.query_blocks
    assert all(a.last == b.first for a, b in pairwise(heads))
    assert parts.counts == once.counts
    assert torch.allclose(parts.out.sum(0), once.out[0], atol=1e-6)
    assert torch.allclose(parts.lse.logsumexp(0), once.lse[0], atol=1e-6)


@given(st.floats(0, 1), st.integers(1, 200), st.integers(1, 200))
def test_boundary_is_the_nearest_in_tiles(share, budget, query_blocks):
    tiles = [causal_tiles(budget, row) for row in range(query_blocks + 1)]
    boundary = row_boundary(share, budget, query_blocks)
    error = abs(tiles[boundary] - share * tiles[-1])
    assert error == min(abs(t - share * tiles[-1]) for t in tiles)


@backends
def test_a_share_too_small_for_a_row_computes_nothing(backend):
    q, k, v = random_qkv(1, 1, 64, 16)
    result = attend(q, k, v, [HeadShare(0, 0, 64, (0.0, 0.01))], 16, backend)
    assert (result.counts.query_blocks, result.counts.tiles) == (0, 0)
    assert (result.out == 0).all()


@backends
def test_no_shares_are_no_work(backend):
    result = attend(*random_qkv(1, 1, 64, 16), [], 16, backend)
    assert result.out.shape == (0, 64, 16)
    assert result.counts.tiles == 0


def test_auto_is_triton_where_there_is_cuda(monkeypatch):
    for available, expected in ((True, "triton"), (False, "torch")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda answer=available: answer)
        assert resolve_backend("auto") == expected
    assert resolve_backend("torch") == "torch"


def test_an_unknown_back_end_is_told_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"'cuda': known are auto, torch, triton"):
        attend(*random_qkv(1, 1, 16, 16), [], 16, "cuda")


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (HeadShare(2, 0, 16), r"shares\[1\].head: 2 is not in 0..1"),
        (HeadShare(-1, 0, 16), r"head: -1"),
        (HeadShare(0, 1, 16), r"group: 1 is not in 0..0"),
        (HeadShare(0, 0, 0), r"budget_tokens: 0 must be a whole number, at least 1"),
        (HeadShare(0, 0, 2.5), r"budget_tokens: 2.5"),
        (HeadShare(0, 0, 16, (0.5, 0.5)), r"rows: \(0.5, 0.5\) must be two cumulative shares"),
        (HeadShare(0, 0, 16, (0.5, 0.2)), r"rows"),
        (HeadShare(0, 0, 16, (-0.1, 0.2)), r"rows"),
        (HeadShare(0, 0, 16, (0.0, 1.1)), r"rows"),
        (HeadShare(0, 0, 16, (0.0, float("nan"))), r"rows"),
    ],
)
def test_bad_shares_are_named(share, message):
    with pytest.raises(AttentionError, match=message):
        attend(*random_qkv(2, 1, 16, 16), [HeadShare(0, 0, 16), share], 16, "torch")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(16, 16)}, r"q: shape \[16, 16\]"),
        ({"q": torch.zeros(0, 16, 16)}, r"q: shape \[0, 16, 16\]"),
        ({"k": torch.zeros(1, 15, 16)}, r"k: \[tokens, head_dim\] is \[15, 16\], but q's is"),
        ({"v": torch.zeros(2, 16, 16)}, r"v: shape \[2, 16, 16\] is not k's \[1, 16, 16\]"),
        ({"q": torch.zeros(1, 16, 16, dtype=torch.int8)}, r"q: torch.int8 must be one of float32"),
        ({"k": torch.zeros(1, 16, 16, dtype=torch.float16)}, r"k: torch.float16 .* q's"),
        ({"v": torch.zeros(1, 16, 16, device="meta")}, r"v: is on meta, but q is on cpu"),
        ({"block_tokens": 0}, r"block_tokens: 0 must be a whole number, at least 1"),
        ({"block_tokens": 16.0}, r"block_tokens: 16.0"),
        ({"block_tokens": 48, "backend": "triton"}, r"block_tokens: 48 must be a power of two"),
        ({"block_tokens": 256, "backend": "triton"}, r"from 16 to 128"),
    ],
)
def test_bad_arguments_are_named(change, message):
    names = dict(zip("qkv", random_qkv(1, 1, 16, 16), strict=True))
    arguments = {**names, "shares": [], "block_tokens": 16, "backend": "torch", **change}
    with pytest.raises(AttentionError, match=message):
        attend(**arguments)


def test_head_dims_triton_cannot_tile_are_refused_but_computed_on_the_cpu():
    qkv = random_qkv(1, 1, 40, 24)
    with pytest.raises(HplbError, match=r"head_dim: 24 must be a power of two from 16 to 256"):
        attend(*qkv, [HeadShare(0, 0, 16)], 16, "triton")
    result = attend(*qkv, [HeadShare(0, 0, 16)], 20, "torch")
    assert relative_error(result.out, reference(*qkv, result.lists)[0]) < 1e-5


def test_tensors_on_another_device_are_refused_by_the_torch_back_end():
    q, k, v = (x.to("meta") for x in random_qkv(1, 1, 16, 16))
    with pytest.raises(AttentionError, match="q: is on meta, but the torch back end"):
        attend(q, k, v, [], 16, "torch")
