"""Filling the bubble: within the room of every device, and as far as it goes."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings

from profiles.catalogue import catalogue_rates, load_profile
from profiles.cost.work import Phase, Workload, budget_pieces, group_work, head_work
from solver.budgets.curves import Floats, Ints, MeasuredCurves
from solver.budgets.fill_bubble import fill_bubble
from solver.budgets.recovery import least_pieces
from tests.solver.budgets.builders import BLOCK, by_block
from tests.solver.budgets.filling import Case, cases, measured, one_layer, tiny


@settings(max_examples=25, deadline=None)
@given(cases(measured))
def test_never_beyond_the_room_never_less_than_before(case: Case) -> None:
    filled = case.filled()
    n = case.workload.context_tokens
    assert ((filled % BLOCK == 0) | (filled == n)).all()
    assert (filled >= case.tokens).all()
    assert (filled <= n).all()
    added = case.loads_s(filled) - case.loads_s(case.tokens)
    assert (added <= case.room_s + 1e-13 * case.loads_s(filled)).all()


@settings(max_examples=25, deadline=None)
@given(cases(tiny))
def test_no_budgets_within_the_room_have_a_better_minimum(case: Case) -> None:
    n = case.curves.context_pieces
    least = budget_pieces(case.tokens, case.workload)[0]
    within, beyond = [float(case.curves.at(least[None]).min())], [0.0]
    for choice in product(*(range(blocks, n + 1) for blocks in least)):
        blocks = np.array([choice])
        spare = case.spare(np.minimum(blocks * BLOCK, case.curves.context_tokens))
        # Where room is used up to the last bit, rounding decides.
        (within if spare > 1e-9 else beyond if spare > -1e-9 else []).append(
            float(case.curves.at(blocks).min())
        )
    found = case.recovery(case.filled()).min()
    assert max(within) - 1e-6 <= found <= max(*within, *beyond) + 1e-6


@settings(max_examples=25, deadline=None)
@given(cases(tiny))
def test_what_is_left_raises_nobody(case: Case) -> None:
    filled = case.filled()
    blocks = budget_pieces(filled, case.workload)
    for head in range(blocks.shape[1]):
        for more in range(blocks[0, head] + 1, case.curves.context_pieces + 1):
            raised = blocks.copy()
            raised[0, head] = more
            if case.curves.at(raised)[0, head] > case.recovery(filled)[0, head]:
                tokens = np.minimum(raised * BLOCK, case.curves.context_tokens)
                assert case.spare(tokens) < 1e-9


@settings(max_examples=25, deadline=None)
@given(cases(tiny))
def test_no_block_is_given_that_recovers_nothing(case: Case) -> None:
    filled = case.filled()
    blocks = budget_pieces(filled, case.workload)
    raised = filled > case.tokens
    assert (case.curves.at(blocks - 1) < case.recovery(filled))[raised].all()


def test_heads_on_the_lighter_device_grow_together() -> None:
    case = one_layer([9, 1, 2], [[1, 0], [0, 1], [0, 1]], "decode")
    filled = case.filled()
    # 32 seconds, of which 19 were taken: each further block is 1 of its own and 2 of its group.
    assert (filled // BLOCK).tolist() == [[9, 4, 3]]
    assert case.recovery(filled).min() == pytest.approx(0.3)


def test_nothing_moves_where_no_device_idles() -> None:
    filled = one_layer([4, 4], [[1, 0], [0, 1]]).filled()
    assert (filled // BLOCK).tolist() == [[4, 4]]


def test_a_divided_head_grows_only_as_far_as_both_devices_allow() -> None:
    """The first device is the makespan: what has a part there stays, and what has none grows."""
    filled = one_layer([8, 3, 3], [[1, 0], [0.5, 0.5], [0, 1]]).filled()
    before = [8, 3, 3]
    after = (filled[0] // BLOCK).tolist()
    assert after[:2] == before[:2]
    assert after[2] > before[2]


def test_a_divided_head_shares_what_its_fuller_device_has() -> None:
    """Its other device has room without end, but that does not make it the first to be served."""
    case = one_layer([9, 1, 1], [[0.5, 0.5], [0.5, 0.5], [0, 1]], "decode")
    filled = replace(case, room_s=np.array([[1000.0, 24.0]])).filled()
    # A block costs 3 seconds undivided, and 2.5 where half of the head and its group are.
    assert (filled // BLOCK).tolist() == [[9, 5, 5]]


def test_a_group_charged_elsewhere_grows_only_while_it_costs_nothing_there() -> None:
    """Decode: the second head may come up to its sibling, whose device is full, but not pass it."""
    room = np.array([[0.0, 1000.0]])
    apart = [[1.0, 0.0], [0.0, 1.0]]
    decode = replace(one_layer([6, 2], apart, "decode"), group_size=2, room_s=room).filled()
    assert (decode // BLOCK).tolist() == [[6, 6]]
    prefill = replace(one_layer([6, 2], apart), group_size=2, room_s=room).filled()
    assert (prefill // BLOCK).tolist() == [[6, 10]]


def test_room_that_ends_on_a_plateau_is_left() -> None:
    """Room for three more blocks: the first two recover nothing more, nor does the fourth."""
    plateaus = by_block([[[0.2, 0.2, 0.2, 0.5, 0.5, 0.5, 0.9, 0.9, 0.9]]])
    case = replace(one_layer([1], [[1]], "decode"), curves=plateaus)
    enough = replace(case, room_s=np.array([[3 * 5.5]])).filled()
    assert (enough // BLOCK).tolist() == [[4]]
    short = replace(case, room_s=np.array([[3 * 2.5]])).filled()
    assert (short // BLOCK).tolist() == [[1]]


def test_the_room_of_the_whole_context_recovers_everything() -> None:
    case = replace(one_layer([1, 5], [[1, 0], [0.4, 0.6]]), room_s=np.full((1, 2), 1e6))
    assert (case.recovery(case.filled()) == 1).all()


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_the_shipped_profile_gains_at_the_same_makespan(phase: Phase) -> None:
    profile, workload = load_profile("llama-3.1-8b-synthetic"), Workload(131072, phase)
    rates = catalogue_rates(["h200"], phase)["h200"]

    def head_seconds(tokens: Ints) -> Floats:
        work = head_work(tokens.astype(np.float64), profile.architecture, workload)
        return np.repeat(rates.seconds(work)[..., None], 4, axis=-1)

    def group_seconds(tokens: Ints) -> Floats:
        work = group_work(tokens.astype(np.float64), profile.architecture, workload)
        return np.repeat(rates.seconds(work)[..., None], 4, axis=-1)

    curves = MeasuredCurves.of(profile.heads).at(workload)  # type: ignore[arg-type]
    tokens = np.minimum(least_pieces(curves, 0.9) * BLOCK, 131072)
    shares = np.zeros((32, 32, 4))
    shares[:, np.arange(32), np.arange(32) // 8] = 1

    def loads_s(tokens: Ints) -> Floats:
        charges = group_seconds(tokens).reshape(32, 4, 2, 4)[:, range(4), :, range(4)].sum(axis=-1)
        return np.asarray((shares * head_seconds(tokens)).sum(axis=1) + charges.T)

    before = loads_s(tokens)
    room = before.max(axis=1, keepdims=True) - before
    filled = fill_bubble(tokens, curves, workload, shares, room, head_seconds, group_seconds)
    after = loads_s(filled)
    assert (after.max(axis=1) <= before.max(axis=1)).all()
    assert after.mean() > 0.99 * after.max(axis=1).mean()
    gained = curves.at(budget_pieces(filled, workload)) - curves.at(budget_pieces(tokens, workload))
    assert gained.mean() > 0.005
