import doctest

from profiles import time_left
from profiles.time_left import TimeLeft, forward_work


def test_the_rest_takes_as_long_as_the_same_work_did() -> None:
    assert doctest.testmod(time_left).failed == 0
    lengths = [1024, 1024, 4096]
    left = TimeLeft(sum(forward_work(length, 576) for length in lengths))
    left.done(forward_work(1024, 576), None)
    assert left.after("text") == "text"
    left.done(forward_work(1024, 576), 2.0)
    # Four times the tokens, and attention's part of each grows beside.
    assert left.seconds == 2.0 * 4 * (12 * 576 + 4096) / (12 * 576 + 1024)
    assert left.after("text") == "text, about 0:00:11 left"
    left.done(forward_work(4096, 576), 12.0)
    assert left.seconds == 0.0
