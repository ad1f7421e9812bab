"""Leases: how long a node may still be taken to be alive, whatever the clock does meanwhile."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from api.client.bodies import LeaseRenewal
from api.problems import Problem, not_found
from api.store import node_store
from api.store.session import Session
from api.store.tables import StoredNode


class Leases:
    """Renewals as they are seen, counted down by a clock that nobody sets.

    A renewal is worth `lease_s` from when this process saw it, as Kubernetes' leader election
    has it, and never more than the wall clock leaves it: set back, that would make a dead node
    live for as long as it was set back.
    """

    def __init__(
        self,
        lease_s: float,
        clock: Callable[[], float],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lease_s = lease_s
        self._clock = clock
        self._steady = steady
        self._lock = Lock()
        self._seen: dict[str, tuple[float, float]] = {}

    def renewed(self, node: StoredNode) -> None:
        """Give a node a new lease."""
        node.lease_expires_at = self._clock() + self.lease_s
        with self._lock:
            self._seen[node.node_id] = node.lease_expires_at, self._steady() + self.lease_s

    def left_s(self, node: StoredNode) -> float:
        """Seconds that a node's lease still runs; 0 or less once it has run out."""
        now, expires_at = self._steady(), node.lease_expires_at
        left_s = expires_at - self._clock()
        with self._lock:
            known = self._seen.get(node.node_id)
            if known is None or known[0] != expires_at:
                known = self._seen[node.node_id] = expires_at, now + min(left_s, self.lease_s)
        return min(left_s, known[1] - now)


@dataclass(frozen=True, eq=False)
class Renewal:
    """What a node said of itself."""

    node_id: str
    body: LeaseRenewal
    leases: Leases


def renew_leases(session: Session, renewals: list[Renewal]) -> list[Exception | None]:
    """Renew leases and keep what runs; for `Database.submit`.

    An outcome is a Problem for an unknown node (404) and for one that another process holds (409).
    """
    ids = {renewal.node_id for renewal in renewals}
    nodes = node_store.named(session, ids, to_change=True)
    return [_renew(nodes.get(renewal.node_id), renewal) for renewal in renewals]


def _renew(node: StoredNode | None, renewal: Renewal) -> Exception | None:
    body = renewal.body
    if node is None:
        return not_found("node", renewal.node_id)
    if node.boot_id != body.boot_id:
        return Problem(409, f"node {renewal.node_id!r} was registered by another process since")
    node.active_deployment = body.active.deployment if body.active else None
    node.active_generation = body.active.generation if body.active else None
    node.error = body.error
    renewal.leases.renewed(node)
    return None
