"""Stored plans that were just asked for, by the very text of their requests: no database is asked.

What another process on the same database changes is seen within a second; what this one changes,
at once (`forget`).
"""

import time
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from api.solves.kept_plan import KeptPlan

REMEMBERED_S = 1.0
MOST_ANSWERS = 64
MOST_BYTES = 2**20
"""Of a request's text and its plan's: larger ones are looked up every time."""


@dataclass(frozen=True)
class _Remembered:
    plan: KeptPlan
    until: float


class RememberedAnswers:
    """Thread-safe. What was looked up before something changed is not taken in after it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._found: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._changes = 0

    @property
    def changes(self) -> int:
        """To be read before the database is, and handed to `add`."""
        return self._changes

    def find(self, request: bytes) -> KeptPlan | None:
        """The answer to a request of this text, or None."""
        with self._lock:
            found = self._found.get(request)
        return found.plan if found is not None and time.monotonic() < found.until else None

    def add(self, request: bytes, plan: KeptPlan, changes: int) -> None:
        """Remember an answer that was looked up after so many changes."""
        if len(request) + len(plan.body) > MOST_BYTES:
            return
        with self._lock:
            if changes == self._changes:
                self._found[request] = _Remembered(plan, time.monotonic() + REMEMBERED_S)
                self._found.move_to_end(request)
                if len(self._found) > MOST_ANSWERS:
                    self._found.popitem(last=False)

    def forget(self) -> None:
        """Rates, profiles, plans or what they answer have changed."""
        with self._lock:
            self._changes += 1
            self._found.clear()
