"""What a scrape learns: whether the database answers, and while it does, what is in it."""

import time
from collections.abc import Iterable, Sequence

from prometheus_client.core import GaugeMetricFamily

from api.deployments.leases import Leases
from api.deployments.views import gauges
from api.store.database import Database
from api.store.session import UnavailableError


def scraped(database: Database, leases: Leases, now: float) -> Iterable[GaugeMetricFamily]:
    """The database's own gauges first: the alert on it needs a scrape that succeeds without it."""
    started = time.monotonic()
    answers = database.answers()
    seconds = time.monotonic() - started
    stored: Sequence[GaugeMetricFamily] = ()
    if answers:
        try:
            stored = gauges(database, leases, now)
        except UnavailableError:
            # It went between the two questions.
            answers = False
    yield GaugeMetricFamily("hplb_database_up", "1 while the database answers.", answers)
    yield GaugeMetricFamily(
        "hplb_database_answer_seconds", "Time it took to answer the scrape's question.", seconds
    )
    yield from stored
