"""Batches of an engine are of steps of any length and phase, not of the plan's workload.

Revision: 0008, follows 0007.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rounds", sa.Column("steps", sa.LargeBinary(), nullable=True))
    op.create_table(
        "steps",
        sa.Column(
            "batch", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False
        ),
        sa.Column("deployment", sa.String(length=128), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.String(length=128), nullable=False),
        sa.Column("run", sa.String(length=128), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batches.id"], name="fk_steps_batch"),
        sa.ForeignKeyConstraint(["deployment"], ["deployments.name"], name="fk_steps_deployment"),
        sa.PrimaryKeyConstraint("batch", name="pk_steps"),
    )
    op.create_index("ix_steps_deployment_generation", "steps", ["deployment", "generation"])
