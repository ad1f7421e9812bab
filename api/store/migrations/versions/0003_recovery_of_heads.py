"""Executors report what heads recover, a deployment its drift, and rounds may go on.

Revision: 0003, follows 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deployments", sa.Column("every_s", sa.Double(), nullable=True))
    op.add_column("deployments", sa.Column("drift", sa.Text(), nullable=True))
    op.create_table(
        "recoveries",
        sa.Column(
            "batch", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False
        ),
        sa.Column("deployment", sa.String(length=128), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.String(length=128), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batches.id"], name="fk_recoveries_batch"),
        sa.ForeignKeyConstraint(
            ["deployment"], ["deployments.name"], name="fk_recoveries_deployment"
        ),
        sa.PrimaryKeyConstraint("batch", name="pk_recoveries"),
    )
    op.create_index(
        "ix_recoveries_deployment_generation", "recoveries", ["deployment", "generation"]
    )
