"""An engine's rows of any context beside what a profile with known rows promises of them."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from api.loop.drift import DriftPolicy, DriftVerdict, Kind, judge_kinds
from api.loop.engine_rows import EngineRows, Floats, means
from api.loop.promise import Promise
from profiles.cost.work import Workload
from profiles.heads import CurvesForm
from solver.budgets.curves import MeasuredCurves

BUDGETS = np.array([[512.0, 256.0, 768.0, 512.0]])
FALLEN = 1
"""The head that loses more of long requests."""
STEEPNESS = 0.2
SHORT, LONG, CHUNK = 1024, 8192, 512
POLICY = DriftPolicy(min_rounds=2, floor=0.05, z=3.0, share=0.2)


def of_a_row(tokens: float, position: Floats) -> Floats:
    """What a row of a made head recovers of so many tokens: (tokens / position) ** STEEPNESS."""
    return np.minimum(tokens / np.maximum(position, 1), 1.0) ** STEEPNESS


def of_a_prompt(share: Floats) -> Floats:
    """The mean of all rows of a whole prompt, by calculus."""
    return (share**STEEPNESS - STEEPNESS * share) / (1 - STEEPNESS)


def promise(budgets: Floats = BUDGETS, context: int = LONG) -> Promise:
    """Curves of the made heads at 1K and at 8K, at many budgets."""
    shares = np.geomspace(1 / 128, 1, 57)
    tokens = [sorted({round(share * each) for share in shares}) for each in (SHORT, LONG)]
    points = min(map(len, tokens))
    tokens = [each[-points:] for each in tokens]
    curves = [
        of_a_prompt(np.array(t) / c).tolist() for t, c in zip(tokens, (SHORT, LONG), strict=True)
    ]
    form = CurvesForm(
        context_tokens=[SHORT, LONG],
        budget_tokens=tokens,
        recovery=[[curves] * budgets.shape[1]] * budgets.shape[0],
    )
    workload = Workload(context, block_tokens=64, piece_tokens=16)
    return Promise(form, MeasuredCurves.of(form), None, None, budgets, workload)


class Requests:
    """Reports of requests, batch after batch, each of `lengths`; of `fails` [heads] the rows beyond
    half of LONG recover that much less than they should."""

    def __init__(self, budgets: Floats = BUDGETS) -> None:
        self.budgets = budgets
        self.rows: list[tuple[int, int, bool, int, int, int, int, float]] = []
        self._draw = np.random.default_rng(0)

    def batch(
        self,
        number: int,
        lengths: Iterable[int],
        fails: float = 0.0,
        noise: float = 0.0,
        node: int = 0,
        part: tuple[float, float] = (0.0, 1.0),
    ) -> "Requests":
        for length in lengths:
            for first in range(0, length, CHUNK):
                last = min(first + CHUNK, length)
                begin, end = (first + round(x * (last - first)) for x in part)
                self._told(number, node, True, begin, end, fails, noise)
            self._told(number, node, False, length - 1, length, fails, noise)
        return self

    def _told(
        self,
        number: int,
        node: int,
        prefill: bool,
        first: int,
        last: int,
        fails: float,
        noise: float,
    ) -> None:
        position = np.arange(first, last) + 0.5
        for head, tokens in enumerate(self.budgets[0]):
            recovered = of_a_row(tokens, position)
            if head == FALLEN:
                recovered = recovered - fails * (position > LONG / 2)
            recovery = float(recovered.mean()) + noise * self._draw.standard_normal()
            row = (number, node, prefill, head, first, last, last - first, recovery)
            self.rows.append(row)

    @property
    def seen(self) -> EngineRows:
        batch, node, prefill, head, first, last, rows, recovery = map(
            np.array, zip(*self.rows, strict=True)
        )
        layer, unknown = np.zeros_like(head), np.full(len(head), np.nan)
        return EngineRows(
            batch, node, prefill, layer, head, first, last, rows, np.clip(recovery, 0, 1), unknown
        )


def verdict(
    requests: Requests, before: DriftVerdict | None = None, policy: DriftPolicy = POLICY
) -> DriftVerdict:
    rows = promise(requests.budgets).of_rows(requests.seen)
    seen = {
        kind: means(rows.only(mine), requests.budgets.shape) for kind, mine in rows.kinds().items()
    }
    return judge_kinds(seen, before, policy, 7.0)


def of(found: DriftVerdict, kind: Kind) -> DriftVerdict:
    (one,) = (each.verdict for each in found.kinds if each.kind == kind)
    return one


@pytest.mark.parametrize("length", [SHORT, 3000, LONG])
def test_all_rows_of_a_prompt_are_promised_what_the_prompt_is(length: int) -> None:
    """Whatever its chunks, and whoever of two ranks has which rows of them."""
    halves = [Requests().batch(0, [length], part=part) for part in ((0.0, 0.3), (0.3, 1.0))]
    made = promise()
    mass = np.zeros(4)
    for half in halves:
        prompt = half.seen.only(half.seen.prefill)
        rows = made.of_rows(prompt)
        covered = prompt.only(prompt.last <= BUDGETS[0, prompt.head])
        mass += np.bincount(rows.head, rows.rows * rows.promised, 4)
        mass += np.bincount(covered.head, covered.rows, 4)
    whole = made.curves.at(Workload(length, block_tokens=64, piece_tokens=16))
    expected = whole.at((BUDGETS / 16).astype(np.int64))[0]
    np.testing.assert_allclose(mass / length, expected, rtol=1e-12)


def test_late_rows_and_decodes_are_promised_what_they_are() -> None:
    """Less than the curve says of the whole prompt, whose first rows recover all."""
    rows = promise().of_rows(Requests().batch(0, [SHORT, 5000, LONG]).seen)
    true = np.array(
        [
            of_a_row(BUDGETS[0, h], np.arange(a, b) + 0.5).mean()
            for h, a, b in zip(rows.head, rows.first, rows.last, strict=True)
        ]
    )
    assert np.abs(rows.promised - true).max() < 0.02
    decodes = rows.only(~rows.prefill & (rows.last == LONG) & (rows.head == 1))
    whole = promise().recovery().recovery[0, 1]
    assert decodes.promised[0] < whole - 0.08


def test_a_head_that_keeps_its_promise_is_accused_at_no_length() -> None:
    requests = Requests()
    for number in range(4):
        requests.batch(number, [SHORT] * 9 + [LONG])
    found = verdict(requests)
    assert (found.heads, found.heads_drifted, found.raised) == (4, 0, False)
    assert {each.kind for each in found.kinds} == {
        Kind(phase, 2**power)
        for phase, powers in (("prefill", range(9, 14)), ("decode", (10, 13)))
        for power in powers
    }
    assert found.observed_mean == pytest.approx(found.expected_mean, abs=0.01)


def test_short_requests_hide_nothing_of_long_ones() -> None:
    requests = Requests()
    for number in range(4):
        requests.batch(number, [SHORT] * 200 + [LONG], fails=0.2)
    found = verdict(requests)
    assert (found.heads, found.heads_drifted, found.raised, found.since) == (4, 1, True, 7.0)
    raised = {each.kind for each in found.kinds if each.verdict.raised}
    assert raised == {Kind("prefill", LONG), Kind("decode", LONG)}
    assert {(head.head, head.kind) for head in found.worst} == {(FALLEN, kind) for kind in raised}
    worst = found.worst[0]
    assert worst.expected - worst.observed == pytest.approx(0.2, abs=0.02)
    assert DriftVerdict.from_json(found.to_json()) == found


def test_short_requests_alone_prove_nothing_of_long_ones() -> None:
    long = Requests().batch(0, [LONG], fails=0.2).batch(1, [LONG], fails=0.2)
    raised = verdict(long)
    short = Requests().batch(2, [SHORT]).batch(3, [SHORT])
    assert not verdict(short).raised
    # Nor do they clear what was raised of these.
    still = verdict(short, raised)
    assert (still.raised, still.since, still.heads_drifted) == (True, 7.0, 0)
    assert (of(still, Kind("prefill", LONG)).heads, of(still, Kind("prefill", SHORT)).heads) == (
        0,
        4,
    )
    kept = verdict(Requests().batch(4, [LONG]).batch(5, [LONG]), still)
    assert (kept.raised, kept.since) == (False, None)


def test_what_a_budget_covers_is_no_evidence() -> None:
    requests = Requests().batch(0, [200, 250]).batch(1, [200, 250])
    assert verdict(requests).kinds == ()
    requests.batch(2, [700]).batch(3, [700])
    found = verdict(requests)
    # A budget of 768 covers that; of the others' rows those count that look further back.
    assert found.heads == 3
    assert of(found, Kind("prefill", 512)).heads == 1


def test_what_scatters_by_more_than_it_misses_is_not_accused() -> None:
    """Two batches of a few rows each, many of 100 heads low by chance; then enough of them."""
    budgets = np.full((1, 100), 512.0)
    few = Requests(budgets).batch(0, [LONG], noise=0.1).batch(1, [LONG], noise=0.1)
    strict = replace(POLICY, share=0.05)
    assert not verdict(few, policy=strict).raised
    rows = promise(budgets).of_rows(few.seen)
    decodes = means(rows.only(~rows.prefill), budgets.shape)
    assert (decodes[0].recovery - decodes[1].recovery > POLICY.floor).sum() > 5
    for number in range(2, 100):
        few.batch(number, [LONG], fails=0.25, noise=0.1)
    found = verdict(few, policy=replace(POLICY, share=0.0))
    of_long = of(found, Kind("decode", LONG))
    assert (of_long.raised, of_long.heads_drifted, of_long.worst[0].head) == (True, 1, FALLEN)


def test_both_ranks_of_a_divided_head_count_by_their_rows_and_as_one_round() -> None:
    requests = Requests()
    for number in range(3):
        requests.batch(2 * number, [LONG], fails=0.2, node=0, part=(0.0, 0.25))
        requests.batch(2 * number + 1, [LONG], node=1, part=(0.25, 1.0))
    rows = promise().of_rows(requests.seen)
    mine = rows.only(rows.kinds()[Kind("prefill", LONG)])
    promised, observed = means(mine, BUDGETS.shape)
    assert observed.rounds.tolist() == [[3] * 4]
    short = promised.recovery[0, FALLEN] - observed.recovery[0, FALLEN]
    assert short == pytest.approx(0.25 * 0.2, abs=0.01)


def test_a_correction_is_made_at_the_contexts_that_promised_what_fell_short() -> None:
    made, requests = promise(), Requests()
    requests.batch(0, [SHORT, 4000, LONG], fails=0.2)
    rows = made.of_rows(requests.seen)
    low = rows.only((rows.head == FALLEN) & (rows.last > LONG / 2))
    expected, observed = made.at_measured(low)
    assert np.isnan(np.delete(observed[0], FALLEN, axis=0)).all()
    lost = (1 - observed[0, FALLEN]) / (1 - expected[0, FALLEN])
    # Rows of 4K to 8K are interpolated between 1K and 8K, where they lose alike.
    assert lost == pytest.approx(
        [(1 - low.recovery).sum() / (1 - low.promised).sum()] * 2, rel=0.05
    )
    only = rows.only((rows.head == FALLEN) & (rows.last == LONG))
    assert np.isnan(made.at_measured(only)[1][0, FALLEN]).tolist() == [True, False]
