"""Masks of four numbers a sequence; transformers' own mask functions say what they stand for."""

import pytest
import torch
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    chunked_causal_mask_function,
    sliding_window_causal_mask_function,
)

from executor.engines.transformers.masks import Mask, make_mask
from executor.errors import AttentionError


def made(**fields):
    return Mask.unpacked(make_mask(**{"batch_size": 1, "q_length": 8, "kv_length": 8, **fields}))


def test_a_causal_mask_is_its_length():
    assert made() == Mask(8, None, ((0, 8),))
    assert made(batch_size=2, q_offset=torch.tensor(5)) == Mask(13, None, ((0, 13),) * 2)


@pytest.mark.parametrize("q_offset", [0, 3, 40])
@pytest.mark.parametrize("q_length", [1, 9, 40])
def test_a_window_is_told_from_chunks(q_offset, q_length):
    slides = {"mask_function": sliding_window_causal_mask_function(7), "local_size": 7}
    fields = {"q_offset": q_offset, "q_length": q_length, "batch_size": 1}
    assert made(**fields, **slides).window == 7
    chunks = chunked_causal_mask_function(7, torch.zeros(1, dtype=torch.int64))
    total = q_offset + q_length
    # Within the first chunk there is nothing to tell, nor for a last row at a chunk's end.
    alike = total <= 7 or (q_length == 1 and total % 7 == 0)
    if alike:
        assert made(**fields, mask_function=chunks, local_size=7).window == 7
    else:
        with pytest.raises(AttentionError, match="packed sequences, chunked and bidirectional"):
            made(**fields, mask_function=chunks, local_size=7)


@pytest.mark.parametrize(
    "fields",
    [
        {"mask_function": bidirectional_mask_function},
        {"mask_function": bidirectional_mask_function, "local_size": 4},
        {"mask_function": sliding_window_causal_mask_function(4)},
        {"mask_function": sliding_window_causal_mask_function(4), "local_size": 5},
        {
            "mask_function": sliding_window_causal_mask_function(4),
            "local_size": 4,
            "use_vmap": True,
        },
    ],
)
def test_other_masks_are_refused(fields):
    with pytest.raises(AttentionError, match="hplb computes causal and sliding-window attention"):
        made(**fields)


def test_padding_is_the_ends_of_a_sequence():
    real = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0] * 6])
    found = made(batch_size=4, q_length=6, attention_mask=real)
    assert found.spans == ((2, 6), (0, 6), (0, 2), (0, 0))
    # The cache has dropped the three oldest tokens.
    found = made(batch_size=4, q_length=1, q_offset=5, kv_offset=3, attention_mask=real)
    assert (found.total_tokens, found.spans) == (3, ((0, 3), (0, 3), (0, 0), (0, 0)))


def test_a_static_caches_room_is_no_padding():
    real = torch.ones(1, 20, dtype=torch.bool)
    real[0, 8:] = False
    assert made(kv_length=20, attention_mask=real) == Mask(8, None, ((0, 8),))


@pytest.mark.parametrize("shape", [(1, 7), (2, 8)])
def test_a_mask_of_other_tokens_is_refused(shape):
    with pytest.raises(AttentionError, match=r"must be \[1 sequences, 8 tokens\]"):
        made(attention_mask=torch.ones(shape))


def test_only_our_own_masks_are_read():
    assert make_mask(1, 4, 4, mask_function=causal_mask_function).shape == (1, 1, 1, 4)
    for other in (torch.ones(1, 4), torch.ones(1, 1, 1, 4), torch.ones(1, 1, 4, 4).long()):
        with pytest.raises(AttentionError, match="which are padding"):
            Mask.unpacked(other)
