"""One candidate a layer under shared capacities, against every choice."""

from itertools import product

import numpy as np
import pytest

from solver.coupling.memory import choose


def case(seed: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    makespan_s = rng.uniform(1, 2, (4, 4))
    held = rng.integers(1, 20, (4, 4, classes)).astype(float)
    return makespan_s, held, held.sum(axis=0).mean(axis=0) * 0.85


@pytest.mark.parametrize("classes", [1, 2])
def test_choices_are_near_the_best_there_is(classes: int) -> None:
    missed, ratios = 0, []
    for seed in range(40):
        makespan_s, held, capacity = case(seed, classes)
        every = [np.array(picks) for picks in product(range(4), repeat=4)]
        fitting = [p for p in every if (held[np.arange(4), p].sum(axis=0) <= capacity).all()]
        picks = choose(makespan_s, held, capacity)
        if (held[np.arange(4), picks].sum(axis=0) <= capacity).all():
            best = min(makespan_s[np.arange(4), p].sum() for p in fitting)
            ratios.append(makespan_s[np.arange(4), picks].sum() / best)
        else:
            missed += bool(fitting)
    assert missed <= 2
    assert np.mean(ratios) < 1.03
    assert len(ratios) > 20


def test_with_room_for_all_the_quickest_are_chosen() -> None:
    makespan_s, held, _ = case(0, 2)
    picks = choose(makespan_s, held, np.full(2, 1e9))
    assert (picks == makespan_s.argmin(axis=1)).all()


def test_a_candidate_that_is_missing_is_never_chosen() -> None:
    makespan_s = np.array([[1.0, np.inf], [1.0, 2.0]])
    held = np.array([[[5.0], [0.0]], [[5.0], [4.0]]])
    assert choose(makespan_s, held, np.zeros(1)).tolist() == [0, 1]


def test_the_cheapest_byte_goes_first() -> None:
    makespan_s = np.array([[1.0, 1.1], [1.0, 1.5]])
    held = np.array([[[10.0], [5.0]], [[10.0], [5.0]]])
    assert choose(makespan_s, held, np.array([15.0])).tolist() == [1, 0]
