"""One solve: who keeps it alive, what it remembers, and what becomes of it."""

import asyncio
from threading import Thread

import pytest

from api.client.bodies import SolveEnd
from api.problems import Problem
from api.solves.job import MOST_REVISIONS, Ended, SolveJob
from solver.solution import Progress

END = SolveEnd(plan_id="p", status="feasible", makespan_s=2.0, lower_bound_s=1.0, gap=0.5)


def _solve() -> SolveJob:
    solve = SolveJob("d" * 64)
    assert solve.join(detached=False)
    solve.begin()
    return solve


def test_the_last_to_leave_leaves_nobody() -> None:
    solve = _solve()
    assert solve.join(detached=False)
    assert not solve.leave()
    assert solve.leave()


def test_who_asked_to_be_answered_later_keeps_it_alive() -> None:
    solve = _solve()
    assert solve.join(detached=True)
    assert not solve.leave()
    assert not solve.leave()


def test_one_that_was_cancelled_or_failed_is_not_shared_one_that_is_done_is() -> None:
    cancelled, failed, done = _solve(), _solve(), _solve()
    cancelled.cancel("cut_short")
    failed.end(Problem(422, "no"))
    done.end(Ended(END, cut_short=False))
    joined = [solve.join(detached=True) for solve in (cancelled, failed, done)]
    assert joined == [False, False, True]


@pytest.mark.parametrize(
    ("cancelled", "fate"),
    [
        ([], "whole"),
        (["cut_short"], "cut_short"),
        (["abandoned"], "abandoned"),
        (["cut_short", "abandoned"], "abandoned"),
        (["abandoned", "cut_short"], "abandoned"),
    ],
)
def test_its_fate(cancelled: list[str], fate: str) -> None:
    solve = _solve()
    for how in cancelled:
        solve.cancel(how)  # type: ignore[arg-type]
    assert solve.cancelled.is_set() == bool(cancelled)
    assert solve.seal() == fate
    solve.cancel("abandoned")
    assert solve.cancelled.is_set() == bool(cancelled), "too late"


def test_only_what_is_better_is_a_revision_and_figures_never_get_worse() -> None:
    solve = _solve()
    told = [(4, 1), (4, 1), (5, 0.5), (3, 0.5), (6, 2), (3, 2), (3, 3)]
    for makespan_s, bound_s in told:
        solve.report_progress(Progress(1, 2, makespan_s, bound_s))
    kept, outcome = solve.since(0)
    assert outcome is None
    found = [(r.revision, r.makespan_s, r.lower_bound_s, r.gap) for r in kept]
    assert found == [(1, 4, 1, 0.75), (2, 3, 1, 1 - 1 / 3), (3, 3, 2, 1 - 2 / 3), (4, 3, 3, 0)]
    assert [r.revision for r in solve.since(2)[0]] == [3, 4]
    elapsed = [r.elapsed_s for r in kept]
    assert elapsed == sorted(elapsed)


def test_revisions_are_bounded_the_newest_kept_and_in_order() -> None:
    solve = _solve()
    for number in range(1, 5001):
        solve.report_progress(Progress(0, 1, 1e6 - number, 0.0))
        kept, _ = solve.since(0)
        assert len(kept) <= MOST_REVISIONS
        assert kept[-1].revision == number
    revisions = [r.revision for r in kept]
    assert revisions == sorted(set(revisions))
    assert len(kept) >= MOST_REVISIONS // 2


def test_its_status() -> None:
    solve = SolveJob("d")
    assert (solve.status().status, solve.status().elapsed_s) == ("queued", 0)
    solve.begin()
    assert solve.status().status == "solving"
    assert solve.status().makespan_s is None
    solve.report_progress(Progress(1, 2, 4.0, 3.0))
    assert (solve.status().makespan_s, solve.status().gap) == (4.0, 0.25)


def test_coroutines_of_several_loops_are_woken_from_any_thread() -> None:
    solve, woken = _solve(), []

    def wait() -> None:
        woken.append(asyncio.run(solve.ended_within(20)))

    waiting = [Thread(target=wait) for _ in range(3)]
    for thread in waiting:
        thread.start()
    solve.end(Ended(END, cut_short=False))
    for thread in waiting:
        thread.join(20)
    assert woken == [True] * 3


def test_a_wait_ends_with_its_time_and_with_the_service() -> None:
    solve = _solve()
    assert asyncio.run(solve.ended_within(0)) is False
    solve.changes.close()
    assert asyncio.run(solve.ended_within(20)) is False
