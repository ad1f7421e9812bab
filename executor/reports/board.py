"""The board: what a daemon's threads know of each other's work; every change wakes all of them."""

from collections.abc import Callable
from threading import Condition
from typing import Any

from api.client.bodies import Active, Assignment


class Board:
    """Written by `change` only.

    assignment  the last good assignment, checkpointed: what the lease calls active
    error       why the newest assignment does not run, for the lease
    known       the newest assignment seen, good or not: what the long poll waits to see replaced
    unusable    what is wrong with the planner's last answer, if it was no assignment at all
    asked       whether the planner has said, since this process began, what it wants
    registered  whether the planner knows this node
    stopping    whether everything is to come to an end
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self.assignment: Assignment | None = None
        self.error: str | None = None
        self.unusable: str | None = None
        self.known: Active | None = None
        self.asked = False
        self.registered = False
        self.stopping = False

    def change(self, **facts: Any) -> None:
        """Set attributes together and wake everyone; without any, just wake everyone."""
        with self._changed:
            for name, value in facts.items():
                setattr(self, name, value)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until `condition()` holds or the end has come; False when it has, or on timeout."""
        with self._changed:
            self._changed.wait_for(lambda: self.stopping or condition(), timeout_s)
            return not self.stopping and condition()

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        self.wait_for(lambda: False, seconds)

    @property
    def report(self) -> tuple[Active | None, str | None]:
        """What a lease says: the active generation and the error."""
        with self._changed:
            active = None if self.assignment is None else self.assignment.active
            return active, self.unusable or self.error
