"""What work tells of itself while it is done: how far it is, and how long the rest of it takes."""

from collections.abc import Callable
from datetime import timedelta

Show = Callable[[float, float, str], None]
"""Called with what is done, of how much, and in words what comes next."""


class TimeLeft:
    """Of `work` in any unit, as much of it a second as so far."""

    def __init__(self, work: float) -> None:
        self._left = work
        self._timed = self._took = 0.0

    def done(self, work: float, seconds: float | None) -> None:
        """So much less is left, and took `seconds`; None where it was done in an earlier run.

        >>> left = TimeLeft(10)
        >>> left.done(4, None), left.seconds
        (None, None)
        >>> left.done(2, 3.0), left.seconds
        (None, 6.0)
        """
        self._left -= work
        if seconds is not None:
            self._timed += work
            self._took += seconds

    @property
    def seconds(self) -> float | None:
        """None until something was timed."""
        return max(0.0, self._left) * self._took / self._timed if self._timed else None

    def after(self, what: str) -> str:
        """`what, about 0:01:32 left`, as far as that is known."""
        if self.seconds is None:
            return what
        return f"{what}, about {timedelta(seconds=round(self.seconds))} left"


def forward_work(tokens: int, hidden_size: int) -> float:
    """Work of one sequence through a model, to compare lengths by.

    A token costs 2 L d (12 d + context) in L layers of width d: Kaplan et al., arXiv 2001.08361,
    table 1.
    """
    return float(tokens * (12 * hidden_size + tokens))
