"""The refine loop, event by event."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from api.loop.decide import (
    Drifted,
    Explain,
    Measured,
    Move,
    Recoveries,
    RefinePolicy,
    RefineState,
    Replan,
    Replanned,
    WentLive,
    decide,
)

POLICY = RefinePolicy(min_rounds=2, min_gain=0.02, cooldown_s=60, rollback_margin=0.05)


def live(generation: int = 1, plan: str = "a") -> RefineState:
    state, effects = decide(RefineState(), WentLive(generation, plan), POLICY, now=0)
    assert effects == []
    return state


def looked(now: float = 10) -> RefineState:
    state, effects = decide(live(), Measured(1, 2, 1.0), POLICY, now)
    assert effects == [Replan()]
    return state


def test_too_few_rounds_change_nothing() -> None:
    state = live()
    assert decide(state, Measured(1, 1, 1.0), POLICY, now=10) == (state, [])


def test_a_late_report_of_a_past_generation_changes_nothing() -> None:
    state = live(generation=3)
    assert decide(state, Measured(2, 9, 1.0), POLICY, now=10) == (state, [])


def test_replans_once_while_a_replan_is_under_way() -> None:
    state = looked()
    _, effects = decide(state, Measured(1, 3, 1.0), POLICY, now=500)
    assert effects == []


def test_a_gain_above_the_threshold_moves() -> None:
    state, effects = decide(looked(), Replanned("b", 1.0, 0.9), POLICY, now=11)
    assert isinstance(effects[0], Move)
    assert effects[0].plan_id == "b"
    assert (state.moved_from, state.moved_from_s) == ("a", 1.0)


def test_hysteresis_holds_below_the_threshold() -> None:
    state, effects = decide(looked(), Replanned("b", 1.0, 0.985), POLICY, now=11)
    assert [type(effect) for effect in effects] == [Explain]
    assert "1.5 %" in effects[0].text  # type: ignore[union-attr]
    assert state.moved_from is None


def test_the_same_plan_is_held() -> None:
    _, effects = decide(looked(), Replanned("a", 1.0, 0.5), POLICY, now=11)
    assert [type(effect) for effect in effects] == [Explain]


def test_cooldown_after_a_look() -> None:
    state, _ = decide(looked(now=10), Replanned("b", 1.0, 1.0), POLICY, now=11)
    assert decide(state, Measured(1, 5, 1.0), POLICY, now=69)[1] == []
    assert decide(state, Measured(1, 5, 1.0), POLICY, now=70)[1] == [Replan()]


def moved_to_b() -> RefineState:
    state, _ = decide(looked(), Replanned("b", 1.0, 0.9), POLICY, now=11)
    state, _ = decide(state, WentLive(2, "b", by_refine=True), POLICY, now=12)
    return state


def test_a_worse_window_rolls_back_and_the_plan_is_not_tried_again() -> None:
    state, effects = decide(moved_to_b(), Measured(2, 2, 1.06), POLICY, now=20)
    assert isinstance(effects[0], Move)
    assert effects[0].plan_id == "a"
    state, _ = decide(state, WentLive(3, "a", by_refine=True), POLICY, now=21)
    state, effects = decide(state, Measured(3, 2, 1.0), POLICY, now=200)
    assert effects == [Replan()]
    _, effects = decide(state, Replanned("b", 1.0, 0.5), POLICY, now=201)
    assert [type(effect) for effect in effects] == [Explain]


def test_a_window_within_the_margin_is_kept() -> None:
    state, effects = decide(moved_to_b(), Measured(2, 2, 1.04), POLICY, now=20)
    assert effects == []
    assert state.moved_from is None


def test_an_operators_move_forgets_what_was_refused() -> None:
    state = replace(moved_to_b(), refused=("c",))
    state, _ = decide(state, WentLive(7, "c"), POLICY, now=30)
    assert (state.refused, state.moved_from, state.looked_at) == ((), None, None)


def test_an_answer_nobody_waits_for_is_ignored() -> None:
    state = live()
    assert decide(state, Replanned("b", 1.0, 0.1), POLICY, now=1) == (state, [])


def drifted(now: float = 10) -> RefineState:
    state, effects = decide(live(), Drifted(1), POLICY, now)
    assert effects == [Replan()]
    assert state.correcting
    return state


def corrected(candidate_s: float, current: float, candidate: float) -> Replanned:
    return Replanned("b", 1.0, candidate_s, Recoveries(current, candidate))


def test_drift_of_a_past_generation_changes_nothing() -> None:
    state = live(generation=3)
    assert decide(state, Drifted(2), POLICY, now=10) == (state, [])


def test_under_drift_a_slower_plan_that_recovers_more_goes_live() -> None:
    state, effects = decide(drifted(), corrected(1.4, 0.6, 0.9), POLICY, now=11)
    assert isinstance(effects[0], Move)
    assert effects[0].plan_id == "b"
    assert "0.600 to 0.900" in effects[0].reason
    assert state.moved_from is None


def test_no_window_of_seconds_rolls_back_what_was_moved_for_recovery() -> None:
    state, _ = decide(drifted(), corrected(1.4, 0.6, 0.9), POLICY, now=11)
    state, _ = decide(state, WentLive(2, "b", by_refine=True), POLICY, now=12)
    state, effects = decide(state, Measured(2, 2, 5.0), POLICY, now=20)
    assert effects == []
    assert state.plan_id == "b"


def test_a_small_gain_of_recovery_is_held_however_fast() -> None:
    _, effects = decide(drifted(), corrected(0.5, 0.6, 0.605), POLICY, now=11)
    assert [type(effect) for effect in effects] == [Explain]
    assert "gains too little" in effects[0].text  # type: ignore[union-attr]


def test_a_promise_that_costs_too_much_is_held() -> None:
    _, effects = decide(drifted(), corrected(1.51, 0.6, 0.9), POLICY, now=11)
    assert [type(effect) for effect in effects] == [Explain]
    assert "51.0 %" in effects[0].text  # type: ignore[union-attr]


def test_looks_for_drift_and_for_seconds_take_turns() -> None:
    state, _ = decide(drifted(now=10), corrected(1.0, 0.6, 0.6), POLICY, now=11)
    state, effects = decide(state, Measured(1, 2, 1.0), POLICY, now=69)
    assert effects == []
    assert decide(state, Drifted(1), POLICY, now=500)[1] == []
    state, effects = decide(state, Measured(1, 2, 1.0), POLICY, now=70)
    assert effects == [Replan()]
    assert not state.correcting
    state, _ = decide(state, Replanned("b", 1.0, 1.0), POLICY, now=71)
    assert decide(state, Drifted(1), POLICY, now=129)[1] == []
    assert decide(state, Drifted(1), POLICY, now=130)[1] == [Replan()]


def test_without_complete_rounds_drift_waits_for_no_turn() -> None:
    state, _ = decide(drifted(now=10), corrected(1.0, 0.6, 0.6), POLICY, now=11)
    assert decide(state, Drifted(1), POLICY, now=129)[1] == []
    assert decide(state, Drifted(1), POLICY, now=130)[1] == [Replan()]


def test_looks_for_drift_that_move_nothing_become_rare() -> None:
    """Each keeps a profile and a plan: a day of lasting drift must not fill a disk."""
    state, looks = live(), 0
    for now in range(0, 86_400, 10):
        state, effects = decide(state, Drifted(1), POLICY, now)
        looks += effects == [Replan()]
        state, _ = decide(state, corrected(1.0, 0.6, 0.6), POLICY, now)
    assert looks == 10
    state, _ = decide(state, WentLive(2, "b", by_refine=True), POLICY, now)
    assert decide(state, Drifted(2), POLICY, now + 60)[1] == [Replan()]


def test_the_window_after_a_move_is_judged_before_drift() -> None:
    state = moved_to_b()
    assert decide(state, Drifted(2), POLICY, now=500) == (state, [])
    state, effects = decide(state, Measured(2, 2, 1.06), POLICY, now=500)
    assert isinstance(effects[0], Move)


def test_a_state_from_before_drift_was_known_is_read() -> None:
    old = '{"generation": 2, "plan_id": "a", "replanning": true, "refused": ["c"]}'
    assert RefineState.from_json(old) == RefineState(2, "a", replanning=True, refused=("c",))


events = st.one_of(
    st.builds(Drifted, st.integers(1, 4)),
    st.builds(
        Replanned,
        st.sampled_from("abc"),
        st.floats(0.5, 2),
        st.floats(0.5, 2),
        st.builds(Recoveries, st.floats(0, 1), st.floats(0, 1)),
    ),
    st.builds(Measured, st.integers(1, 4), st.integers(0, 5), st.floats(0.5, 2)),
    st.builds(Replanned, st.sampled_from("abc"), st.floats(0.5, 2), st.floats(0.5, 2)),
    st.builds(WentLive, st.integers(1, 4), st.sampled_from("abc"), st.booleans()),
)


@given(st.lists(events, max_size=30))
def test_any_history_survives_a_restart_and_never_moves_to_the_live_plan(history: list) -> None:
    state = RefineState()
    for now, event in enumerate(history):
        assert RefineState.from_json(state.to_json()) == state
        before = state
        state, effects = decide(state, event, POLICY, now=30.0 * now)
        for effect in effects:
            if isinstance(effect, Move):
                assert effect.plan_id not in before.refused or effect.plan_id == before.moved_from
                assert not isinstance(event, Replanned) or effect.plan_id != before.plan_id


def test_a_placement_that_was_left_must_gain_twice_as_much_for_every_time() -> None:
    for returns, gain, moves in ((0, 0.03, True), (1, 0.03, False), (1, 0.05, True), (3, 0.15, 0)):
        _, effects = decide(
            looked(), Replanned("b", 1.0, 1 - gain, returns=returns), POLICY, now=11
        )
        assert any(isinstance(effect, Move) for effect in effects) == moves
    assert "left 3 times" in effects[-1].text  # type: ignore[union-attr]


def test_an_engines_window_is_held_against_the_workloads_of_the_move() -> None:
    """Before: 2 s as measured of what both plans were predicted for, whatever was served then."""
    replanned = Replanned("b", 1.0, 0.5, measured_s=2.0)
    state, _ = decide(looked(), replanned, POLICY, now=11)
    assert (state.moved_from_s, state.expected_s) == (2.0, 0.5)
    state, _ = decide(state, WentLive(2, "b", by_refine=True), POLICY, now=12)
    assert state.expected_s == 0.5
    kept, effects = decide(state, Measured(2, 2, 4 * 0.5), POLICY, now=13)
    assert effects == []
    assert kept.moved_from is None
    back, effects = decide(state, Measured(2, 2, 5 * 0.5), POLICY, now=13)
    assert isinstance(effects[0], Move)
    assert (effects[0].plan_id, back.expected_s) == ("a", None)


def test_what_a_plan_was_moved_to_for_ends_with_it() -> None:
    state, _ = decide(looked(), Replanned("b", 1.0, 0.5), POLICY, now=11)
    state, _ = decide(state, WentLive(2, "b", by_refine=True), POLICY, now=12)
    put, _ = decide(state, WentLive(3, "c"), POLICY, now=13)
    assert put.expected_s is None
