"""Keys that grow in place: what was handed out stays, and bounds are those of keys seen anew."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.inference.room import LARGEST_PIECE, LEAST_SPARE, InRoom, Room, room_of
from executor.kernels.bounds import page_bounds

GROUPS, DIM = 2, 4


def drawn(tokens, seed=0, sequences=1):
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, sequences, GROUPS, tokens, DIM, generator=random))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.just(1) | st.integers(1, 40), st.booleans(), st.sampled_from([4, 16])),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 9),
)
def test_bounds_kept_are_bounds_from_scratch(steps, first):
    """Whatever comes between two times they are asked for, whatever size of piece."""
    room = Room(*drawn(10))
    for number, (new, asked, piece) in enumerate(steps):
        keys, values = drawn(new, seed=number + 1)
        if not room.takes(keys, values):
            held = [torch.cat(x, 2) for x in zip(room.held(), (keys, values), strict=True)]
            room = Room(*held)
        else:
            room.append(keys, values)
        if asked:
            tokens = room.filled - first
            sequence = room.sequence(0, first)
            pieces = -(-tokens // piece)
            cache, bounds = sequence.pages(tokens, piece)
            wanted = page_bounds(cache, torch.tensor([tokens], dtype=torch.int32))
            assert torch.equal(bounds[:pieces], wanted[:pieces])
            seen = cache.keys[:pieces].transpose(0, 1).flatten(1, 2)[:, :tokens]
            assert torch.equal(seen, room.held()[0][0, :, first:])


def test_fewer_tokens_than_before_have_their_own_bounds():
    room = Room(*drawn(40))
    sequence = room.sequence(0, 0)
    sequence.pages(40, 16)
    cache, bounds = sequence.pages(20, 16)
    wanted = page_bounds(cache, torch.tensor([20], dtype=torch.int32))
    assert torch.equal(bounds[:2], wanted[:2])


def test_what_was_handed_out_stays_as_it_was():
    room = Room(*drawn(5))
    keys, values = room.held()
    before = keys.clone(), values.clone()
    room.append(*drawn(3, seed=1))
    assert torch.equal(keys, before[0])
    assert torch.equal(values, before[1])
    assert room.held()[0].shape[2] == 8


def test_only_what_a_room_handed_out_is_in_it():
    keys, values = Room(*drawn(5)).held()
    other = Room(*drawn(5)).held()
    assert isinstance(keys, InRoom)
    assert room_of(keys, values) is keys.room
    for changed in (keys[:, :, :3], keys.clone(), keys[[0]], copy.deepcopy(keys), other[0]):
        assert room_of(changed, values) is None
    assert torch.equal(copy.deepcopy(keys), keys)


def test_a_room_takes_what_is_like_what_it_holds():
    room = Room(*drawn(5))
    keys, values = drawn(LEAST_SPARE)
    assert room.takes(keys, values)
    more = drawn(LEAST_SPARE + 1)
    assert not room.takes(*more)
    assert not room.takes(keys.double(), values.double())
    assert not room.takes(*drawn(3, sequences=2))
    assert not room.takes(keys[..., :2], values[..., :2])
    assert not room.takes(keys.clone().requires_grad_(), values)


def test_a_room_of_inference_mode_goes_on_outside_it():
    with torch.inference_mode():
        room = Room(*drawn(20))
        room.sequence(0, 0).pages(20, 16)
    room.append(*drawn(1, seed=1))
    cache, bounds = room.sequence(0, 0).pages(21, 16)
    assert torch.equal(bounds[:2], page_bounds(cache, torch.tensor([21], dtype=torch.int32))[:2])
    with torch.inference_mode():
        room.append(*drawn(1, seed=2))
        cache, bounds = room.sequence(0, 0).pages(22, 16)
    assert torch.equal(bounds[:2], page_bounds(cache, torch.tensor([22], dtype=torch.int32))[:2])


@pytest.mark.parametrize("first", [0, 3])
def test_a_room_that_ends_within_the_newest_piece_has_no_pages(first):
    room = Room(*drawn(5))
    room.append(*drawn(LEAST_SPARE))
    tokens = room.filled - first
    for piece in (LARGEST_PIECE, 16):
        assert room.sequence(0, first).pages(tokens, piece) is not None
    assert room.sequence(0, first).pages(tokens, 512) is None
