"""Every part that the ablation takes out is there to be taken out, and is back afterwards."""

import pkgutil

import pytest

from benchmarks.ablation import PARTS, WHOLE, without


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_replaced_by_its_stand_in_and_put_back(part: str) -> None:
    before = {target: pkgutil.resolve_name(target) for target in PARTS[part]}
    with without(WHOLE):
        assert {target: pkgutil.resolve_name(target) for target in PARTS[part]} == before
    with without(part):
        for target, stand_in in PARTS[part].items():
            assert pkgutil.resolve_name(target) is stand_in is not before[target]
    assert {target: pkgutil.resolve_name(target) for target in PARTS[part]} == before
