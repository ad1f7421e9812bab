"""Which slot is which head: plans with and without slots, and those that no engine holds."""

import pytest

from executor.errors import WeightsError
from executor.weights.slots import Slot, slots_of
from profiles.architecture import Architecture
from tests.executor.plans import Placement, whole
from tests.executor.weights.models import DIVIDED, SHAPE, WHOLE, planned

REPLICAS = Architecture(layers=1, query_heads=8, kv_heads=2, head_dim=16, hidden_size=64)


def test_a_rank_has_its_groups_in_order_and_padding_behind() -> None:
    layout = slots_of(planned(WHOLE, slots=3))
    assert (layout.ranks, layout.slots, layout.slot_heads) == (2, 3, 2)
    assert layout.groups(0) == [0, 2, None, 1, None, None]
    assert layout.heads(1) == [4, 5, None, None, None, None, 0, 1, 2, 3, None, None]
    assert not layout.needs_map
    padded = layout.padded(SHAPE)
    assert (padded.kv_heads, padded.query_heads, padded.head_dim) == (6, 12, 16)


def test_a_divided_groups_heads_are_on_every_rank_with_the_rows_that_each_computes() -> None:
    layout = slots_of(planned(DIVIDED, slots=2))
    assert layout.layers[0][0][1] == Slot(group=1, heads=(2, 3), rows=((0.0, 0.3), None))
    assert layout.layers[0][1][0] == Slot(group=1, heads=(2, 3), rows=((0.3, 1.0), (0.0, 1.0)))
    assert layout.needs_map


def test_a_layouts_id_is_the_weights_and_not_what_is_computed_with_them() -> None:
    layout = slots_of(planned(DIVIDED, slots=2))
    shares = [
        [[(d, 0.5) for d, _ in entries] if len(entries) > 1 else entries for entries in of]
        for of in DIVIDED
    ]
    again = slots_of(planned(shares, slots=2))
    assert again != layout
    assert again.id == layout.id
    assert slots_of(planned(WHOLE, slots=2)).id != layout.id


def test_equal_counts_of_whole_groups_need_no_slots() -> None:
    layout = slots_of(planned([whole(1, 1, 0, 0, 2, 2)], slots=None, devices=3))
    assert layout.groups(0) == [1, 0, 2]
    assert (layout.slots, layout.slot_heads) == (1, 2)


def test_more_ranks_than_kv_heads_have_a_copy_each_and_their_own_heads_of_it() -> None:
    placement = whole(0, 1, 1, 0, 3, 2, 2, 3)
    layout = slots_of(planned([placement], slots=None, devices=4, shape=REPLICAS))
    assert layout.groups(0) == [0, 0, 1, 1]
    assert layout.heads(0) == [0, 3, 1, 2, 5, 6, 4, 7]
    assert not layout.needs_map


@pytest.mark.parametrize(
    ("layers", "why", "slots"),
    [
        (WHOLE, "in layer 0 device 1 has 1 KV groups and device 0 2", 2),
        (DIVIDED[:1] * 2, "heads are divided", 2),
        ([whole(0, 0, 0, 1, 1, 1)] * 2, "in layer 0 devices compute 1 to 2 heads of a KV group", 2),
        ([whole(1, 1, 1, 1, 1, 1)] * 2, "in layer 0 device 0 has 0 KV groups and device 1 3", 3),
    ],
)
def test_a_plan_without_slots_that_no_engine_holds_is_told_which_to_ask_for(
    layers: list[Placement], why: str, slots: int
) -> None:
    with pytest.raises(WeightsError, match=f"{why}; .*plan with --slots {slots}$"):
        slots_of(planned(layers, slots=None))


def test_more_groups_than_slots_are_no_plan() -> None:
    with pytest.raises(WeightsError, match="layer 0: device 0 has 2 KV groups, more than the plan"):
        slots_of(planned(WHOLE, slots=1))
