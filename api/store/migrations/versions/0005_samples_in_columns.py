"""A batch's samples are one row a device type, column by column, not a row and a document each.

Revision: 0005, follows 0004.
"""

import json
import struct
import zlib
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

AT_ONCE = 500
RowId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "rounds",
        sa.Column("id", RowId, autoincrement=True, nullable=False),
        sa.Column("batch", RowId, nullable=False),
        sa.Column("deployment", sa.String(length=128), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.String(length=128), nullable=False),
        sa.Column("timing", sa.String(length=16), nullable=False),
        sa.Column("device_type", sa.String(length=64), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("context_tokens", sa.BigInteger(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("layers", sa.LargeBinary(), nullable=False),
        sa.Column("devices", sa.LargeBinary(), nullable=False),
        sa.Column("seconds", sa.LargeBinary(), nullable=False),
        sa.Column("features", sa.JSON(), nullable=False),
        sa.Column("work", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batches.id"], name="fk_rounds_batch"),
        sa.ForeignKeyConstraint(["deployment"], ["deployments.name"], name="fk_rounds_deployment"),
        sa.PrimaryKeyConstraint("id", name="pk_rounds"),
    )
    _carry_over()
    op.create_index("ix_rounds_batch", "rounds", ["batch"])
    op.create_index("ix_rounds_device_type_phase_id", "rounds", ["device_type", "phase", "id"])
    op.create_index(
        "ix_rounds_deployment_generation_id", "rounds", ["deployment", "generation", "id"]
    )
    op.create_index("ix_batches_node_id_id", "batches", ["node_id", "id"])
    op.drop_table("samples")


def _carry_over() -> None:
    """Batch by batch, for all samples together may not fit into memory."""
    connection = op.get_bind()
    rounds = sa.Table("rounds", sa.MetaData(), autoload_with=connection)
    last = -1
    while True:
        batches = connection.execute(
            sa.text(
                "SELECT id, deployment, generation, node_id, timing FROM batches "
                "WHERE id > :last ORDER BY id LIMIT :most"
            ),
            {"last": last, "most": AT_ONCE},
        ).all()
        if not batches:
            return
        first, last = batches[0].id, batches[-1].id
        by_id = {batch.id: batch for batch in batches}
        samples = connection.execute(
            sa.text(
                "SELECT batch, device_type, phase, context_tokens, layer, device, seconds, work "
                "FROM samples WHERE batch BETWEEN :first AND :last "
                "ORDER BY batch, device_type, phase, context_tokens, id"
            ),
            {"first": first, "last": last},
        ).all()
        rows = [
            _row(by_id[key[0]], key, list(group))
            for key, group in groupby(samples, key=lambda row: tuple(row[:4]))
        ]
        if rows:
            connection.execute(rounds.insert(), rows)


def _row(batch: Any, key: tuple[Any, ...], samples: list[Any]) -> dict[str, Any]:
    counted = [json.loads(s.work) if isinstance(s.work, str) else s.work for s in samples]
    # What was counted in features that are no more is {} since 0004, whatever it was before.
    whole = all(isinstance(work, dict) and work for work in counted)
    features = sorted({name for work in counted for name in work}) if whole else []
    work = [float(row.get(name, 0.0)) for row in counted for name in features]
    count = len(samples)
    return {
        "batch": batch.id,
        "deployment": batch.deployment,
        "generation": batch.generation,
        "node_id": batch.node_id,
        "timing": batch.timing,
        "device_type": key[1],
        "phase": key[2],
        "context_tokens": key[3],
        "samples": count,
        "layers": struct.pack(f"<{count}i", *(s.layer for s in samples)),
        "devices": struct.pack(f"<{count}i", *(s.device for s in samples)),
        "seconds": struct.pack(f"<{count}d", *(s.seconds for s in samples)),
        "features": features,
        "work": zlib.compress(struct.pack(f"<{len(work)}d", *work)),
    }
