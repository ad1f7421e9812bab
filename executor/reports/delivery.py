"""Delivery: what is spooled goes to the planner, in order, as soon as it takes it."""

import structlog

from api.client.planner_client import PlannerClient
from api.client.planner_errors import KeyRefusedError, PlannerError, RefusedError, SupersededError
from executor.reports.board import Board
from executor.reports.outage import Outage
from executor.reports.spool import Spool
from executor.reports.state import NodeState

log = structlog.get_logger()


def deliver(board: Board, client: PlannerClient, spool: Spool, state: NodeState) -> None:
    """Send batches until the board says stop; each leaves the spool once its fate is certain.

    Raises KeyRefusedError: with the right key they would have been taken.
    """
    outage = Outage(board, "measurements not accepted")
    while board.wait_for(lambda: len(spool) > 0):
        oldest = spool.oldest()
        if oldest is None:
            continue
        file, spooled = oldest
        name = {"generation": spooled.batch.generation, "round": spooled.round}
        try:
            receipt = client.post_measurements(spooled.batch)
        except KeyRefusedError:
            raise
        except SupersededError:
            log.info("measurements dropped: a newer generation is live", **name)
        except RefusedError as error:
            log.error("measurements dropped: refused", **name, reason=str(error))
        except PlannerError as error:
            outage.wait(error, silent=not error.answered)
            continue
        else:
            log.info("measurements delivered", **name, rejected=receipt.rejected)
            state.save_rounds(spooled.batch.key, spooled.round)
        outage.over()
        spool.remove(file)
        board.change()
