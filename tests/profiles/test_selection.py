"""How a head's blocks are chosen: in the profile, in its digest, and S2-Attention's shifts."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.architecture import Architecture
from profiles.catalogue import catalogue_profile
from profiles.errors import ProfileError
from profiles.model import ModelProfile
from profiles.selection import POOLED, Sampled, Selection, SinkLocal, Strided, VerticalSlash
from tests.profiles.test_model import PROFILE, parse

SELECTIONS: list[Selection] = [
    VerticalSlash(),
    SinkLocal(sink_tokens=64),
    Sampled(rows=3),
    Strided(block_tokens=64, local_blocks=16, vert_stride=8, dense_kv_heads=1),
]
STRIDED = SELECTIONS[-1].model_dump()


def with_heads(query_heads: int, kv_heads: int) -> Architecture:
    return Architecture(
        layers=1, query_heads=query_heads, kv_heads=kv_heads, head_dim=64, hidden_size=64
    )


@pytest.mark.parametrize("selection", SELECTIONS, ids=lambda selection: selection.kind)
def test_a_profile_keeps_its_selection(selection: Selection) -> None:
    profile = parse(selection=selection.model_dump())
    assert profile.selection == selection
    assert json.loads(profile.model_dump_json())["selection"] == selection.model_dump()
    assert ModelProfile.parse(profile.model_dump_json(), "here.json") == profile
    assert profile.digest != parse().digest


def test_pooled_is_the_default_and_leaves_no_trace() -> None:
    assert parse().selection == POOLED
    assert parse(selection={"kind": "pooled"}).digest == parse().digest
    assert "selection" not in json.loads(parse().model_dump_json())


def test_profiles_keep_the_digests_they_had_before_selections() -> None:
    assert parse().digest == "4a8e43127fe92ba1b25cccfcd103440dcee3d35777900ebef45c3f2f79e51d28"
    shipped = catalogue_profile("llama-3.1-8b-synthetic")
    of_attention = shipped.model_copy(update={"architecture": shipped.architecture.attention})
    assert of_attention.digest == "afc6ce6190cd9b3951e05b448b9bad765ff8aca888c378bbfc5689703eb614bd"


@pytest.mark.parametrize(
    ("selection", "field"),
    [
        ({"kind": "entrails"}, "selection: .*'pooled'"),
        ({}, "selection"),
        ({"kind": "pooled", "sink_tokens": 1}, "selection.pooled.sink_tokens"),
        ({"kind": "sampled", "rows": 0}, "selection.sampled.rows"),
        ({"kind": "sampled", "rows": 17}, "selection.sampled.rows"),
        ({"kind": "sampled", "rows": 1.5}, "selection.sampled.rows"),
        ({"kind": "sink_local"}, "selection.sink_local.sink_tokens"),
        ({"kind": "sink_local", "sink_tokens": -1}, "selection.sink_local.sink_tokens"),
        (STRIDED | {"vert_stride": 0}, "selection.strided.vert_stride"),
        (STRIDED | {"dense_kv_heads": 2}, "selection.dense_kv_heads: 2, .* has 1 KV heads"),
    ],
)
def test_a_bad_selection_is_named(selection: dict[str, Any], field: str) -> None:
    with pytest.raises(ProfileError, match=rf"^here\.json: {field}"):
        ModelProfile.parse(json.dumps(PROFILE | {"selection": selection}), "here.json")


@given(
    kv_heads=st.integers(1, 16),
    group=st.integers(1, 8),
    stride=st.integers(1, 300),
    kv_head=st.integers(0, 15),
)
def test_offsets_are_those_of_the_paper(
    kv_heads: int, group: int, stride: int, kv_head: int
) -> None:
    """Block j is in KV head h's stride iff (j + h * step) mod stride is 0 (arXiv 2407.17678)."""
    pattern = Strided(block_tokens=64, local_blocks=1, vert_stride=stride)
    offset = pattern.offset(kv_head, with_heads(kv_heads * group, kv_heads))
    step = max(1, int(stride / (kv_heads * group)))
    assert 0 <= offset < stride
    assert (offset + kv_head * step) % stride == 0


@pytest.mark.parametrize(("kv_heads", "stride"), [(8, 8), (32, 8), (8, 3)])
def test_heads_together_cover_the_context(kv_heads: int, stride: int) -> None:
    pattern = Strided(block_tokens=64, local_blocks=1, vert_stride=stride)
    shape = with_heads(kv_heads, kv_heads)
    assert {pattern.offset(head, shape) for head in range(kv_heads)} == set(range(stride))


def test_the_last_kv_heads_are_dense() -> None:
    pattern = Strided(block_tokens=64, local_blocks=1, vert_stride=8, dense_kv_heads=2)
    dense = [pattern.dense(kv_head, with_heads(8, 4)) for kv_head in range(4)]
    assert dense == [False, False, True, True]
