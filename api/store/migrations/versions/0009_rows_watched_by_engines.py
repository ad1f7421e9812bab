"""Engines report what their heads recover of rows of any context.

Revision: 0009, follows 0008.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "watched",
        sa.Column(
            "batch", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False
        ),
        sa.Column("layer", sa.Integer(), autoincrement=False),
        sa.Column("deployment", sa.String(length=128), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.String(length=128), nullable=False),
        sa.Column("rows", sa.LargeBinary(), nullable=False),
        sa.Column("recovery", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batches.id"], name="fk_watched_batch"),
        sa.ForeignKeyConstraint(["deployment"], ["deployments.name"], name="fk_watched_deployment"),
        sa.PrimaryKeyConstraint("batch", "layer", name="pk_watched"),
    )
    op.create_index("ix_watched_deployment_generation", "watched", ["deployment", "generation"])
