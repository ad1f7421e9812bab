"""Rates in force: the newest stored, else what the catalogue fitted, else the roofline."""

from collections.abc import Collection, Iterable
from typing import get_args

from sqlalchemy import func, select

from api.store.session import Session
from api.store.tables import StoredRates
from profiles.catalogue import catalogue_rates, device_names
from profiles.cost.rates import Rates, RatesOf
from profiles.cost.work import Phase

PHASES: tuple[Phase, ...] = get_args(Phase)


def prior(device: str, phase: Phase) -> Rates:
    """What is known of a device type without this service's own measurements."""
    return catalogue_rates([device], phase)[device]


def in_force(session: Session, device: str, phase: Phase, when: float | None = None) -> Rates:
    """The rates that plans made now use, or at some time, as far back as they are kept.

    Raises UnknownNameError for an unknown device type.
    """
    newest = (
        select(StoredRates.body)
        .where(StoredRates.device == device, StoredRates.phase == phase)
        .order_by(StoredRates.id.desc())
        .limit(1)
    )
    if when is not None:
        newest = newest.where(StoredRates.created_at <= when)
    body = session.scalar(newest)
    return Rates.model_validate_json(body) if body else prior(device, phase)


def rates_of(
    session: Session,
    devices: Collection[str],
    phases: Iterable[Phase] = PHASES,
    when: float | None = None,
) -> RatesOf:
    """As `in_force`, of each device type in each phase."""
    return {
        phase: {name: in_force(session, name, phase, when) for name in devices} for phase in phases
    }


def all_in_force(session: Session) -> list[Rates]:
    """The rates of every device type and phase."""
    newest = select(func.max(StoredRates.id)).group_by(StoredRates.device, StoredRates.phase)
    bodies = session.scalars(select(StoredRates.body).where(StoredRates.id.in_(newest)))
    stored = {(r.device, r.phase): r for r in map(Rates.model_validate_json, bodies)}
    return [
        stored.get((device, phase)) or prior(device, phase)
        for device in sorted({*device_names(), *(device for device, _ in stored)})
        for phase in PHASES
    ]


def keep(session: Session, rates: Rates, now: float) -> None:
    """Put rates in force as a new version."""
    session.add(
        StoredRates(
            device=rates.device,
            phase=rates.phase,
            version=rates.version,
            body=rates.model_dump_json(),
            created_at=now,
        )
    )
