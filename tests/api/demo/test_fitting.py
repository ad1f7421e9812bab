"""What three minutes hold: the longest context, and then as many layers as fit."""

import pytest

from api.demo.fitting import (
    BESIDE_S,
    LEAST_LAYERS,
    MOST_LAYERS,
    USUAL_CONTEXT,
    WHOLE_S,
    Effort,
    layers_to_run,
    usual_context,
)
from profiles.catalogue import DEFAULT_PROFILE, REFERENCE_PROFILE, catalogue_profile
from profiles.fetched import SMOLLM2

REAL, SMALL = catalogue_profile(SMOLLM2.name), catalogue_profile(REFERENCE_PROFILE)
LITTLE, MUCH, TOO_MUCH = Effort(1, 1, 0), Effort(8, 38, 4), Effort(10_000, 10_000, 100)


def test_the_longest_measured_context_that_fits() -> None:
    assert usual_context(SMALL, LITTLE, None) == 2048
    assert usual_context(REAL, LITTLE, None) == 4096
    assert usual_context(REAL, TOO_MUCH, None) == 2048
    assert MUCH.seconds(REAL, 2048, LEAST_LAYERS) < WHOLE_S
    assert usual_context(catalogue_profile(DEFAULT_PROFILE), LITTLE, None) == USUAL_CONTEXT


@pytest.mark.parametrize("effort", [LITTLE, MUCH])
def test_as_many_layers_as_fit(effort: Effort) -> None:
    context = usual_context(REAL, effort, None)
    layers = layers_to_run(REAL, effort, context, None)
    assert LEAST_LAYERS <= len(layers) <= MOST_LAYERS
    assert effort.seconds(REAL, context, len(layers)) <= WHOLE_S
    if len(layers) < MOST_LAYERS:
        assert effort.seconds(REAL, context, len(layers) + 1) > WHOLE_S


def test_layers_are_spread_over_the_model() -> None:
    assert layers_to_run(REAL, TOO_MUCH, 4096, None) == [14]
    assert layers_to_run(REAL, LITTLE, 4096, 3) == [4, 14, 24]
    assert layers_to_run(SMALL, LITTLE, 2048, 99) == [0, 1, 2, 3]


def test_rounds_forwards_and_what_is_beside_them_take_time() -> None:
    assert Effort(0, 0, 0).seconds(REAL, 2048, 2) == BESIDE_S
    rounds, forwards = (each.seconds(REAL, 2048, 2) for each in (LITTLE, Effort(1, 1, 1)))
    assert BESIDE_S < rounds < forwards
    assert rounds < LITTLE.seconds(REAL, 2048, 3) < LITTLE.seconds(REAL, 4096, 3)
