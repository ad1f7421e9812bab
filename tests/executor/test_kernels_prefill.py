"""Both back ends against the definition, on the same lists; NaN wherever nothing was written."""

from itertools import pairwise

import pytest
import torch

from executor.kernels import cpu, prefill
from executor.kernels.select import HeadRows, select_blocks

from .reference import random_lists, random_qkv, reference, relative_error

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3}
backends = pytest.mark.parametrize("run", [cpu.prefill, prefill.prefill], ids=["torch", "triton"])


def computed(run, q, k, v, lists):
    """What a back end writes into outputs full of NaN."""
    out = q.new_full((len(lists.heads), *q.shape[1:]), torch.nan)
    lse = torch.full(out.shape[:2], torch.nan)
    run(q, k, v, lists, out, lse)
    return out, lse


def assert_right(run, q, k, v, lists):
    out, lse = computed(run, q, k, v, lists)
    wanted, wanted_lse = reference(q, k, v, lists)
    done = wanted_lse.isfinite()
    assert out[~done].isnan().all()
    assert lse[~done].isnan().all()
    tolerance = TOLERANCE[q.dtype]
    assert relative_error(out[done], wanted[done]) < tolerance
    assert (lse[done] - wanted_lse[done]).abs().max() < tolerance * wanted_lse[done].abs().max()


@backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize(
    ("tokens", "block", "head_dim"), [(256, 64, 32), (97, 16, 64), (129, 64, 64), (1, 16, 16)]
)
def test_every_length_block_and_type(run, dtype, tokens, block, head_dim):
    q, k, v = random_qkv(2, 1, tokens, head_dim, dtype=dtype)
    n = -(-tokens // block)
    heads = [HeadRows(0, 0, 2, 0, n), HeadRows(1, 0, n, 0, n)]
    assert_right(run, q, k, v, random_lists(heads, n, block))


@backends
@pytest.mark.parametrize(("query_heads", "groups"), [(8, 1), (5, 2), (3, 3), (7, 4)])
def test_any_number_of_query_heads_per_kv_head_each_with_its_budget(run, query_heads, groups):
    q, k, v = random_qkv(query_heads, groups, 75, 32, seed=query_heads)
    heads = [HeadRows(h, h * groups // query_heads, 1 + h, 0, 5) for h in range(query_heads)]
    assert_right(run, q, k, v, random_lists(heads[::-1], 5, 16))


@backends
def test_row_ranges_are_computed_and_nothing_else(run):
    q, k, v = random_qkv(3, 2, 90, 32)
    heads = [
        HeadRows(0, 0, 2, 0, 2),
        HeadRows(1, 1, 6, 3, 6),
        HeadRows(2, 0, 3, 4, 4),
        HeadRows(1, 0, 4, 1, 5),
    ]
    assert_right(run, q, k, v, random_lists(heads, 6, 16))


@backends
def test_row_ranges_recombine_to_the_whole_head(run):
    q, k, v = random_qkv(1, 1, 120, 32)
    whole = computed(run, q, k, v, select_blocks(q, k, [HeadRows(0, 0, 3, 0, 8)], 16))
    cuts = (0, 3, 4, 8)
    heads = [HeadRows(0, 0, 3, *cut) for cut in pairwise(cuts)]
    parts = computed(run, q, k, v, select_blocks(q, k, heads, 16))
    for part, full in zip(parts, whole, strict=True):
        assert torch.allclose(part.nan_to_num(0.0).sum(0), full[0], atol=1e-6)


@backends
@pytest.mark.parametrize("scale", [30.0, 1e-4])
def test_huge_and_tiny_logits(run, scale):
    q, k, v = random_qkv(2, 1, 100, 32, scale=scale)
    lists = random_lists([HeadRows(0, 0, 7, 0, 7), HeadRows(1, 0, 2, 0, 7)], 7, 16)
    out, lse = computed(run, q, k, v, lists)
    wanted, wanted_lse = reference(q, k, v, lists)
    # A logit in the thousands carries an absolute error that its exponential turns relative.
    logits = (q.double() @ k.double().transpose(1, 2)).abs().max() / 32**0.5
    assert relative_error(out, wanted) < 1e-5 + 1e-6 * logits
    assert relative_error(lse, wanted_lse) < 1e-5


@backends
def test_token_major_tensors(run):
    q, k, v = (x.transpose(0, 1).contiguous().transpose(0, 1) for x in random_qkv(3, 2, 50, 32))
    heads = [HeadRows(2, 1, 2, 0, 4), HeadRows(0, 0, 4, 1, 3)]
    assert_right(run, q, k, v, random_lists(heads, 4, 16))


@pytest.mark.parametrize("seed", range(2))
def test_back_ends_agree_on_the_same_lists(seed):
    q, k, v = random_qkv(4, 2, 83, 32, seed=seed)
    lists = random_lists([HeadRows(h, h % 2, 1 + h, 0, 6) for h in range(4)], 6, 16, seed)
    ours, theirs = (computed(run, q, k, v, lists) for run in (cpu.prefill, prefill.prefill))
    for a, b in zip(ours, theirs, strict=True):
        assert relative_error(a, b.double()) < 1e-5


@pytest.mark.parametrize("budget", [1, 2, 3, 11, 16, 17, 40, 50])
def test_cpu_steps_of_every_shape(budget, monkeypatch):
    """Lists below, at and above the tiles of one step, where rows are batched or lists cut."""
    monkeypatch.setattr(cpu, "GATHERED_BYTES", 16 * 2 * 4 * 16 * 4)
    q, k, v = random_qkv(1, 1, 4 * 50 - 1, 16)
    assert_right(cpu.prefill, q, k, v, random_lists([HeadRows(0, 0, budget, 0, 50)], 50, 4))


def test_cpu_takes_bfloat16():
    q, k, v = random_qkv(1, 1, 100, 32, dtype=torch.bfloat16)
    lists = random_lists([HeadRows(0, 0, 3, 0, 7)], 7, 16)
    out, lse = computed(cpu.prefill, q, k, v, lists)
    wanted, wanted_lse = reference(q, k, v, lists)
    assert out.dtype == torch.bfloat16
    assert relative_error(out, wanted) < 4e-3
    assert relative_error(lse, wanted_lse) < 1e-5
