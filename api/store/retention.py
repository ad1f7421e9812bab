"""What is kept of what adds up, by count and by age; the rest is deleted, little by little.

What is in use is never deleted: the live generation, rates in force, plans that a deployment runs
or ran in a generation that is kept, profiles that a kept plan was made from.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from api.store import sample_store
from api.store.database import Database
from api.store.session import ConflictError, Session
from api.store.tables import (
    PlanOrigin,
    ProfileContent,
    StoredAnswer,
    StoredBatch,
    StoredDeployment,
    StoredGeneration,
    StoredPlan,
    StoredProfile,
    StoredRates,
    StoredRecovery,
    StoredRound,
    StoredSolve,
    StoredSteps,
    StoredWatched,
)

DELETED_AT_ONCE = 200
"""Rows in one transaction: who else writes waits for no more than that."""
YOUNG_S = 3600.0
"""A plan this new is not deleted for being one too many: it may be about to be deployed."""


@dataclass(frozen=True)
class Keep:
    """The newest `most`, and none older than `seconds`; None is without limit."""

    most: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class RetentionPolicy:
    """Of plans and named profiles; of each node's batches, each deployment's generations, and the
    rates of each device type and phase."""

    plans: Keep = Keep()
    batches: Keep = Keep()
    generations: Keep = Keep()
    rates: Keep = Keep()
    profiles: Keep = Keep()


_Find = Callable[[Session, RetentionPolicy, float], Iterable[Any]]
_Remove = Callable[[Session, Sequence[Any]], object]


def prune(database: Database, policy: RetentionPolicy, now: float) -> Counter[str]:
    """Delete what is beyond the policy; returns how many rows of which table.

    Found in reading transactions and deleted in many short ones. What came into use meanwhile is
    left. Raises UnavailableError.
    """
    deleted: Counter[str] = Counter()
    for name, find, remove in _steps():
        with database.read() as session:
            doomed = iter(list(find(session, policy, now)))
        while some := list(islice(doomed, DELETED_AT_ONCE)):
            try:
                with database.write() as session:
                    remove(session, some)
            except ConflictError:
                continue
            deleted[name] += len(some)
    return +deleted


def _steps() -> tuple[tuple[str, _Find, _Remove], ...]:
    """In this order: what refers to other rows goes before these."""
    return (
        ("generations", _old_generations, _remove_generations),
        ("batches", _old_batches, remove_batches),
        ("rounds", _old_rounds, _removing(StoredRound.id)),
        ("rates", _old_rates, _removing(StoredRates.id)),
        ("plans", _old_plans, remove_plans),
        ("profiles", _old_profiles, _removing(StoredProfile.name)),
        ("profile_contents", _unused_contents, _removing(ProfileContent.digest)),
    )


def _removing(key: InstrumentedAttribute[Any]) -> _Remove:
    """Deletes the rows of a table that a key names, to which nothing refers."""
    return lambda session, keys: session.execute(delete(key.class_).where(key.in_(keys)))


def remove_batches(session: Session, ids: Sequence[int]) -> None:
    """Delete batches and what they measured."""
    session.execute(delete(StoredRecovery).where(StoredRecovery.batch.in_(ids)))
    session.execute(delete(StoredSteps).where(StoredSteps.batch.in_(ids)))
    session.execute(delete(StoredWatched).where(StoredWatched.batch.in_(ids)))
    session.execute(delete(StoredRound).where(StoredRound.batch.in_(ids)))
    session.execute(delete(StoredBatch).where(StoredBatch.id.in_(ids)))


def remove_deployment(session: Session, deployment: StoredDeployment) -> None:
    """Delete a deployment that no node serves, its history and what was measured of it."""
    name = deployment.name
    batches = session.scalars(select(StoredBatch.id).where(StoredBatch.deployment == name)).all()
    for start in range(0, len(batches), DELETED_AT_ONCE):
        remove_batches(session, batches[start : start + DELETED_AT_ONCE])
    session.execute(delete(StoredGeneration).where(StoredGeneration.deployment == name))
    session.delete(deployment)


def remove_plans(session: Session, ids: Sequence[str]) -> None:
    """Delete plans, and that they answer anything."""
    session.execute(delete(StoredAnswer).where(StoredAnswer.plan_id.in_(ids)))
    session.execute(delete(PlanOrigin).where(PlanOrigin.plan_id.in_(ids)))
    session.execute(delete(StoredPlan).where(StoredPlan.id.in_(ids)))


def _old(
    session: Session,
    keep: Keep,
    now: float,
    columns: Sequence[InstrumentedAttribute[Any]],
    at: InstrumentedAttribute[float],
    newest_first: ColumnElement[Any],
    of: Sequence[InstrumentedAttribute[Any]] = (),
) -> list[Any]:
    """Rows beyond what is kept of their kind, with their `rank` in it, the newest 1."""
    if keep == Keep():
        return []
    rank = func.row_number().over(partition_by=list(of) or None, order_by=newest_first)
    ranked = select(*columns, at.label("since"), rank.label("rank")).subquery()
    beyond = []
    if keep.most is not None:
        beyond.append(ranked.c.rank > keep.most)
    if keep.seconds is not None:
        beyond.append(ranked.c.since < now - keep.seconds)
    wanted = [ranked.c[column.key] for column in columns]
    return list(session.execute(select(*wanted, ranked.c.rank).where(or_(*beyond))))


def _old_generations(
    session: Session, policy: RetentionPolicy, now: float
) -> Iterable[tuple[str, int]]:
    table = StoredGeneration
    old = _old(
        session,
        policy.generations,
        now,
        (table.deployment, table.generation),
        table.at,
        table.generation.desc(),
        (table.deployment,),
    )
    return [(row.deployment, row.generation) for row in old if row.rank > 1]


def _remove_generations(session: Session, keys: Sequence[tuple[str, int]]) -> None:
    """Their history alone: batches without one are the next to go."""
    table = StoredGeneration
    session.execute(delete(table).where(tuple_(table.deployment, table.generation).in_(keys)))


def _old_batches(session: Session, policy: RetentionPolicy, now: float) -> Iterable[int]:
    table, generation = StoredBatch, StoredGeneration
    old = _old(
        session,
        policy.batches,
        now,
        (table.id,),
        table.received_at,
        table.id.desc(),
        (table.node_id,),
    )
    known = and_(
        generation.deployment == table.deployment, generation.generation == table.generation
    )
    orphans = session.scalars(
        select(table.id).join(generation, known, isouter=True).where(generation.at.is_(None))
    )
    return sorted({*(row.id for row in old), *orphans})


def _old_rounds(session: Session, policy: RetentionPolicy, now: float) -> Iterable[int]:
    """Beyond the newest of each node and generation, which is all that anything is made from."""
    del policy, now
    table = StoredRound
    kind = (
        table.deployment,
        table.generation,
        table.node_id,
        table.timing,
        table.device_type,
        table.phase,
    )
    rank = func.row_number().over(partition_by=kind, order_by=table.id.desc()).label("rank")
    ranked = select(table.id, rank).subquery()
    return session.scalars(
        select(ranked.c.id).where(ranked.c.rank > sample_store.NEWEST_ROUNDS)
    ).all()


def _old_rates(session: Session, policy: RetentionPolicy, now: float) -> Iterable[int]:
    table = StoredRates
    kind = (table.device, table.phase)
    old = _old(session, policy.rates, now, (table.id,), table.created_at, table.id.desc(), kind)
    return [row.id for row in old if row.rank > 1]


def _old_plans(session: Session, policy: RetentionPolicy, now: float) -> Iterable[str]:
    table = StoredPlan
    old = _old(session, policy.plans, now, (table.id,), table.created_at, table.created_at.desc())
    in_use = _plans_in_use(session) if old else set()
    young = set(session.scalars(select(table.id).where(table.created_at > now - YOUNG_S)))
    return [row.id for row in old if row.id not in in_use | young]


def _plans_in_use(session: Session) -> set[str]:
    """Those that a deployment runs or ran, and those whose placements these were asked to keep."""
    used = {
        *session.scalars(select(StoredDeployment.plan_id)),
        *session.scalars(select(StoredGeneration.plan_id).distinct()),
        *session.scalars(select(StoredBatch.plan_id).distinct()),
    }
    moved_from = session.execute(
        select(PlanOrigin.plan_id, PlanOrigin.options["placement"]["current_plan"])
    )
    return used | {
        current for plan, current in moved_from if plan in used and isinstance(current, str)
    }


def _old_profiles(session: Session, policy: RetentionPolicy, now: float) -> Iterable[str]:
    table = StoredProfile
    old = _old(
        session, policy.profiles, now, (table.name,), table.stored_at, table.stored_at.desc()
    )
    return [row.name for row in old]


def _unused_contents(session: Session, policy: RetentionPolicy, now: float) -> Iterable[str]:
    del policy, now
    used: set[str | None] = set(session.scalars(select(StoredProfile.digest)))
    for asked in (PlanOrigin, StoredSolve):
        used.update(session.scalars(select(asked.profile_digest).distinct()))
        workloads = session.scalars(select(asked.options["workloads"]))
        used.update(step.get("profile") for steps in workloads for step in steps or [])
    return [d for d in session.scalars(select(ProfileContent.digest)) if d not in used]
