"""An outage: said once when it begins and once when it ends, its retries ever further apart."""

import random

import structlog

from api.client.planner_errors import PlannerError
from executor.reports.board import Board

log = structlog.get_logger()
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0


class Outage:
    """What one thread does while its calls fail; silent ones leave the telling to another."""

    def __init__(self, board: Board, what: str) -> None:
        self._board, self._what = board, what
        self._wait_s = FIRST_WAIT_S
        self._said = False

    def wait(self, error: PlannerError, silent: bool = False) -> None:
        """Pause before the next attempt, jittered so that nodes do not return all at once."""
        if not silent and not self._said:
            log.warning(f"{self._what}, trying on", reason=str(error))
            self._said = True
        self._board.pause(self._wait_s * random.uniform(0.5, 1.0))
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)

    def over(self) -> None:
        """The call went through."""
        if self._said:
            log.info(f"{self._what}: over")
        self._said = False
        self._wait_s = FIRST_WAIT_S
