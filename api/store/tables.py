"""The tables. Times are seconds since the epoch; bodies are JSON text, whole as they were sent."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
RowId = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only where the type is exactly INTEGER."""


class Table(DeclarativeBase):
    """What all tables share."""

    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map = {float: Double, dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


class ProfileContent(Table):
    """A model profile's content under its digest: what a plan was made from stays known."""

    __tablename__ = "profile_contents"
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    body: Mapped[str] = mapped_column(Text)


class StoredProfile(Table):
    """A name that a client gave to a profile."""

    __tablename__ = "profiles"
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("profile_contents.digest"))
    summary: Mapped[dict[str, Any]]
    stored_at: Mapped[float]


class StoredPlan(Table):
    """A plan under its content id, with the columns that lists show."""

    __tablename__ = "plans"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    body: Mapped[str] = mapped_column(Text)
    summary: Mapped[dict[str, Any]]
    created_at: Mapped[float] = mapped_column(index=True)


class PlanOrigin(Table):
    """The newest request that a plan was made for; its profiles by their digests."""

    __tablename__ = "plan_origins"
    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.id"), primary_key=True)
    profile_digest: Mapped[str] = mapped_column(ForeignKey("profile_contents.digest"))
    options: Mapped[dict[str, Any]]
    created_at: Mapped[float]


class StoredAnswer(Table):
    """The plan that answers every request of a digest."""

    __tablename__ = "answers"
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.id"))
    created_at: Mapped[float]


class StoredSolve(Table):
    """A solve whose answer was promised (202): what is asked for, by whom, until it has ended."""

    __tablename__ = "solves"
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    profile_digest: Mapped[str] = mapped_column(ForeignKey("profile_contents.digest"))
    options: Mapped[dict[str, Any]]
    client: Mapped[str] = mapped_column(String(128))
    urgency: Mapped[int]
    asked_at: Mapped[float]


class IdempotencyKey(Table):
    """An idempotency key of a client: the request it came with, and the solve that answers it."""

    __tablename__ = "idempotency_keys"
    client: Mapped[str] = mapped_column(String(128), primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    request: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(index=True)


class StoredRates(Table):
    """A version of the rates of a (device type, phase); the newest is in force."""

    __tablename__ = "rates"
    __table_args__ = (Index(None, "device", "phase", "id"),)
    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    device: Mapped[str] = mapped_column(String(64))
    phase: Mapped[str] = mapped_column(String(16))
    version: Mapped[str] = mapped_column(String(16))
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float]


class StoredDeployment(Table):
    """Which plan is live on which nodes; `refine_state` is the refine loop's memory.

    `drift` is the newest verdict on the live generation's recovery (`api.loop.drift.DriftVerdict`).
    """

    __tablename__ = "deployments"
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    generation: Mapped[int]
    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.id"))
    nodes: Mapped[list[Any]]
    layers: Mapped[list[Any]]
    rounds: Mapped[int]
    every_s: Mapped[float | None]
    refine: Mapped[bool]
    refine_state: Mapped[str] = mapped_column(Text)
    decision: Mapped[str | None] = mapped_column(Text)
    drift: Mapped[str | None] = mapped_column(Text)


class StoredGeneration(Table):
    """What was live when, and why it came."""

    __tablename__ = "generations"
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.name"), primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.id"))
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[float]


class StoredNode(Table):
    """A registered node; `deployment` is the one it serves, `part` its plan device indices."""

    __tablename__ = "nodes"
    node_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    boot_id: Mapped[str] = mapped_column(String(128))
    devices: Mapped[list[Any]]
    backend: Mapped[str] = mapped_column(String(128))
    versions: Mapped[dict[str, Any]]
    lease_expires_at: Mapped[float]
    active_deployment: Mapped[str | None] = mapped_column(String(128))
    active_generation: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    deployment: Mapped[str | None] = mapped_column(ForeignKey("deployments.name"), index=True)
    part: Mapped[list[Any]]


class StoredBatch(Table):
    """A batch of measurements, one round of one node; its id makes posting it twice harmless."""

    __tablename__ = "batches"
    __table_args__ = (
        UniqueConstraint("batch_id"),
        Index(None, "deployment", "generation"),
        Index(None, "node_id", "id"),
    )
    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    batch_id: Mapped[str] = mapped_column(String(128))
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.name"))
    generation: Mapped[int]
    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.id"))
    node_id: Mapped[str] = mapped_column(String(128))
    timing: Mapped[str] = mapped_column(String(16))
    accepted: Mapped[int]
    rejected: Mapped[int]
    received_at: Mapped[float]


class StoredRound(Table):
    """What a batch measured on its devices of one type: samples, column by column.

    `layers` and `devices` are little-endian int32, `seconds` float64, all [samples]; `work` is
    float64 [samples, features], compressed by zlib, `features` its columns' names (none where it
    was counted in features that are no more). `steps`, int32 like layers, are the places of an
    engine's samples in its batch's `StoredSteps`.
    """

    __tablename__ = "rounds"
    __table_args__ = (
        Index(None, "device_type", "phase", "id"),
        Index(None, "deployment", "generation", "id"),
    )
    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    batch: Mapped[int] = mapped_column(ForeignKey("batches.id"), index=True)
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.name"))
    generation: Mapped[int]
    node_id: Mapped[str] = mapped_column(String(128))
    timing: Mapped[str] = mapped_column(String(16))
    device_type: Mapped[str] = mapped_column(String(64))
    phase: Mapped[str] = mapped_column(String(16))
    context_tokens: Mapped[int] = mapped_column(BigInteger)
    samples: Mapped[int]
    layers: Mapped[bytes]
    devices: Mapped[bytes]
    seconds: Mapped[bytes]
    features: Mapped[list[Any]]
    work: Mapped[bytes]
    steps: Mapped[bytes | None]


class StoredSteps(Table):
    """The steps of an engine's `run` that a batch is of, rows of `api.store.served_store.Step`."""

    __tablename__ = "steps"
    __table_args__ = (Index(None, "deployment", "generation"),)
    batch: Mapped[int] = mapped_column(
        ForeignKey("batches.id"), primary_key=True, autoincrement=False
    )
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.name"))
    generation: Mapped[int]
    node_id: Mapped[str] = mapped_column(String(128))
    run: Mapped[str] = mapped_column(String(128))
    figures: Mapped[list[Any]]


class StoredRecovery(Table):
    """What a batch reported of its heads, rows of (layer, head, rows, tiles, recovery).

    Only a window of the live generation's newest batches is kept.
    """

    __tablename__ = "recoveries"
    __table_args__ = (Index(None, "deployment", "generation"),)
    batch: Mapped[int] = mapped_column(
        ForeignKey("batches.id"), primary_key=True, autoincrement=False
    )
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.name"))
    generation: Mapped[int]
    node_id: Mapped[str] = mapped_column(String(128))
    figures: Mapped[list[Any]]


class StoredWatched(Table):
    """What a batch of an engine watched of a layer: rows of heads, and what their lists held.

    `rows` is little-endian int32 [reports, 5] (`api.store.watched_store.COLUMNS`), `recovery`
    float64 [reports]. Only a window of the live generation's newest is kept.
    """

    __tablename__ = "watched"
    __table_args__ = (Index(None, "deployment", "generation"),)
    batch: Mapped[int] = mapped_column(
        ForeignKey("batches.id"), primary_key=True, autoincrement=False
    )
    layer: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.name"))
    generation: Mapped[int]
    node_id: Mapped[str] = mapped_column(String(128))
    rows: Mapped[bytes]
    recovery: Mapped[bytes]


class StoredKey(Table):
    """A key by its secret's SHA-256; `node`, where there is one, is all that it may act as."""

    __tablename__ = "keys"
    __table_args__ = (UniqueConstraint("digest"),)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[Any]]
    node: Mapped[str | None] = mapped_column(String(128))
    made_at: Mapped[float]
