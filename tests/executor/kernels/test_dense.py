"""Whole dense heads by PyTorch's attention: which they are, and that they are computed right."""

import warnings

import pytest
import torch

from executor.attention.lists import lay_out, set_apart
from executor.kernels import dense
from executor.kernels.batch import Cache, Chunk
from executor.kernels.dense import WholePrompt, dense_attention
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import Rule, by_budget
from tests.executor.kernels.cpu_cases import strided
from tests.executor.kernels.reference import (
    prefill_reference,
    random_cache,
    random_indices,
    random_q,
    relative_error,
)

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
CHUNKS = (Chunk(0, 70), Chunk(32, 50), Chunk(0, 37), Chunk(5, 20))
ROWS = (
    HeadBlocks(0, 0, 99, 0, 5),
    HeadBlocks(1, 0, 2, 0, 5),
    HeadBlocks(2, 0, 5, 0, 5),
    HeadBlocks(3, 1, 99, 0, 3),  # A part of its rows.
    HeadBlocks(3, 1, 99, 3, 5),
    HeadBlocks(0, 0, 99, 2, 6, sequence=1),  # Behind a prefix.
    HeadBlocks(2, 1, 99, 0, 3, sequence=2, pattern=Rule.sink_local()),
    HeadBlocks(1, 0, 2, 0, 3, sequence=2),
    HeadBlocks(3, 1, 99, 0, 3, sequence=2, pattern=Rule.strided(2, 3)),
    HeadBlocks(0, 0, 99, 0, 2, sequence=3),  # Behind a prefix shorter than a block.
)
APART = (WholePrompt((0, 2), 0, 0, 0, 70), WholePrompt((2,), 1, 2, 120, 37))


@pytest.fixture(autouse=True)
def nothing_refused(monkeypatch):
    monkeypatch.setattr(dense, "_refused", set())


def test_heads_of_whole_prompts_that_hold_every_piece_are_set_apart():
    apart = set_apart(lay_out(ROWS, CHUNKS, 16))
    assert apart.dense == APART
    assert apart.others.heads == tuple(ROWS[i] for i in (1, 3, 4, 5, 7, 8, 9))


def test_a_short_prompts_budget_of_one_block_is_all_of_it():
    apart = set_apart(lay_out([HeadBlocks(0, 0, 1, 0, 1)], [Chunk(0, 9)], 16, piece_tokens=4))
    assert apart.dense == (WholePrompt((0,), 0, 0, 0, 9),)
    assert apart.others is None
    assert (
        set_apart(lay_out([HeadBlocks(0, 0, 4, 0, 2)], [Chunk(0, 32)], 16, piece_tokens=4)) is None
    )


@pytest.mark.parametrize("programs", [None, 1, 4])
@pytest.mark.parametrize("piece", [16, 8])
def test_both_layouts_read_the_same_indices(piece, programs):
    rows = [x for x in ROWS if piece == 16 or by_budget(x.pattern)]
    layout = lay_out(rows, CHUNKS, 16, programs=programs, piece_tokens=piece)
    others = set_apart(layout, programs).others
    kept = [
        number
        for number in range(layout.lists)
        if layout.heads[int(layout.entry[number])] in others.heads
    ]
    assert len(kept) == others.lists < layout.lists
    for name in ("query_block", "length", "start"):
        assert torch.equal(getattr(layout, name)[kept], getattr(others, name))
    assert others.stored == layout.stored
    assert torch.equal(layout.entries[layout.entry.long()][kept], others.entries[others.entry])


@pytest.mark.parametrize("cache_kind", ["contiguous", "paged", "strided"])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_their_rows_are_right_and_no_others_are_touched(dtype, cache_kind):
    layout = lay_out(ROWS, CHUNKS, 16)
    apart = set_apart(layout)
    # A page is larger than a block, and the last one is not full.
    cache = random_cache(CHUNKS, 2, 24, 32, paged=cache_kind == "paged", dtype=dtype)
    q = random_q(CHUNKS, 4, 24, dtype=dtype)
    if cache_kind == "strided":
        cache = Cache(strided(cache.keys), strided(cache.values), starts=cache.starts)
        q = strided(q)
    out, lse = torch.full_like(q, torch.nan), torch.full(q.shape[:2], torch.nan)
    assert dense_attention(q, cache, apart.dense, out, lse)
    computed = torch.zeros(q.shape[:2], dtype=torch.bool)
    for prompt in apart.dense:
        computed[list(prompt.heads), prompt.first : prompt.first + prompt.tokens] = True
    assert computed.sum() == 2 * 70 + 37
    assert out[~computed].isnan().all()
    assert lse[~computed].isnan().all()
    wanted, wanted_lse = prefill_reference(q, cache, layout, random_indices(layout))
    assert relative_error(out[computed], wanted[computed]) < TOLERANCE[dtype]
    assert relative_error(lse[computed], wanted_lse[computed]) < TOLERANCE[dtype]


def test_a_refusal_is_said_once_and_not_tried_again(monkeypatch):
    asked = []

    def refuses(q, *_):
        asked.append(q.shape)
        raise RuntimeError("no kernel for these sizes")

    monkeypatch.setattr(dense, "causal", refuses)
    cache, q = random_cache(CHUNKS, 2, 24, 16), random_q(CHUNKS, 4, 24)
    out, lse = torch.empty_like(q), torch.empty(q.shape[:2])
    with pytest.warns(RuntimeWarning, match=r"2 heads x 70 tokens .* no kernel for these sizes"):
        assert not dense_attention(q, cache, APART, out, lse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not dense_attention(q, cache, APART, out, lse)
    assert asked == [(1, 2, 70, 24)]


class OnGpu:
    """Stands for a tensor on a GPU."""

    is_cuda = True


@pytest.mark.parametrize("taken", [True, False])
def test_cudnn_is_asked_for_what_it_takes_alone(monkeypatch, taken):
    """The operator itself checks no types: fp32 would be read as halves."""
    monkeypatch.setattr(dense, "SDPAParams", lambda *given: given[4:])
    monkeypatch.setattr(dense, "can_use_cudnn_attention", lambda _: taken)
    monkeypatch.setattr(dense, "cudnn", lambda *given: given)
    tensors = (OnGpu(), OnGpu(), OnGpu())
    if taken:
        assert dense.causal(*tensors) == tensors
    else:
        with pytest.raises(RuntimeError, match="cuDNN does not take such tensors"):
            dense.causal(*tensors)


def test_cudnns_operator_is_called_as_it_is_declared():
    """PyTorch's own shape functions: a group's heads share K and V, the log-sum-exp is fp32."""
    q, keys = (torch.empty(1, n, 70, 64, dtype=torch.bfloat16, device="meta") for n in (4, 1))
    out, lse = dense.cudnn(q, keys, keys)
    assert (out.shape, out.dtype) == (q.shape, q.dtype)
    assert (lse.shape, lse.dtype) == ((1, 4, 70, 1), torch.float32)
