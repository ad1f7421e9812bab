"""The first schema.

Revision: 0001, follows nothing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "plans",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_plans"),
    )
    op.create_index("ix_plans_created_at", "plans", ["created_at"], unique=False)
    op.create_table(
        "profile_contents",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_profile_contents"),
    )
    op.create_table(
        "rates",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("version", sa.String(length=16), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rates"),
    )
    op.create_index("ix_rates_device_phase_id", "rates", ["device", "phase", "id"], unique=False)
    op.create_table(
        "deployments",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("plan_id", sa.String(length=64), nullable=False),
        sa.Column("nodes", sa.JSON(), nullable=False),
        sa.Column("layers", sa.JSON(), nullable=False),
        sa.Column("rounds", sa.Integer(), nullable=False),
        sa.Column("refine", sa.Boolean(), nullable=False),
        sa.Column("refine_state", sa.Text(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name="fk_deployments_plan_id"),
        sa.PrimaryKeyConstraint("name", name="pk_deployments"),
    )
    op.create_table(
        "plan_requests",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("plan_id", sa.String(length=64), nullable=False),
        sa.Column("profile_digest", sa.String(length=64), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name="fk_plan_requests_plan_id"),
        sa.ForeignKeyConstraint(
            ["profile_digest"], ["profile_contents.digest"], name="fk_plan_requests_profile_digest"
        ),
        sa.PrimaryKeyConstraint("digest", name="pk_plan_requests"),
    )
    op.create_index("ix_plan_requests_plan_id", "plan_requests", ["plan_id"], unique=False)
    op.create_table(
        "profiles",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("stored_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["profile_contents.digest"], name="fk_profiles_digest"),
        sa.PrimaryKeyConstraint("name", name="pk_profiles"),
    )
    op.create_table(
        "batches",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("batch_id", sa.String(length=128), nullable=False),
        sa.Column("deployment", sa.String(length=128), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("plan_id", sa.String(length=64), nullable=False),
        sa.Column("node_id", sa.String(length=128), nullable=False),
        sa.Column("timing", sa.String(length=16), nullable=False),
        sa.Column("accepted", sa.Integer(), nullable=False),
        sa.Column("rejected", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["deployment"], ["deployments.name"], name="fk_batches_deployment"),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name="fk_batches_plan_id"),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
        sa.UniqueConstraint("batch_id", name="uq_batches_batch_id"),
    )
    op.create_index(
        "ix_batches_deployment_generation", "batches", ["deployment", "generation"], unique=False
    )
    op.create_table(
        "generations",
        sa.Column("deployment", sa.String(length=128), nullable=False),
        sa.Column("generation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("plan_id", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["deployment"], ["deployments.name"], name="fk_generations_deployment"
        ),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name="fk_generations_plan_id"),
        sa.PrimaryKeyConstraint("deployment", "generation", name="pk_generations"),
    )
    op.create_table(
        "nodes",
        sa.Column("node_id", sa.String(length=128), nullable=False),
        sa.Column("boot_id", sa.String(length=128), nullable=False),
        sa.Column("devices", sa.JSON(), nullable=False),
        sa.Column("backend", sa.String(length=128), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("lease_expires_at", sa.Double(), nullable=False),
        sa.Column("active_deployment", sa.String(length=128), nullable=True),
        sa.Column("active_generation", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("deployment", sa.String(length=128), nullable=True),
        sa.Column("part", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["deployment"], ["deployments.name"], name="fk_nodes_deployment"),
        sa.PrimaryKeyConstraint("node_id", name="pk_nodes"),
    )
    op.create_index("ix_nodes_deployment", "nodes", ["deployment"], unique=False)
    op.create_table(
        "samples",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("batch", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("layer", sa.Integer(), nullable=False),
        sa.Column("device", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("work", sa.JSON(), nullable=False),
        sa.Column("device_type", sa.String(length=64), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("context_tokens", sa.BigInteger(), nullable=False),
        sa.Column("measured_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["batch"], ["batches.id"], name="fk_samples_batch"),
        sa.PrimaryKeyConstraint("id", name="pk_samples"),
    )
    op.create_index("ix_samples_batch", "samples", ["batch"], unique=False)
    op.create_index(
        "ix_samples_device_type_phase_id", "samples", ["device_type", "phase", "id"], unique=False
    )
