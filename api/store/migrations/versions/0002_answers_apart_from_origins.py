"""What a plan was made for and which requests it answers are two things.

A plan that was cut short answers none, and an answer that was replaced still has its origin.

Revision: 0002, follows 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "plan_origins",
        sa.Column("plan_id", sa.String(length=64), nullable=False),
        sa.Column("profile_digest", sa.String(length=64), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name="fk_plan_origins_plan_id"),
        sa.ForeignKeyConstraint(
            ["profile_digest"], ["profile_contents.digest"], name="fk_plan_origins_profile_digest"
        ),
        sa.PrimaryKeyConstraint("plan_id", name="pk_plan_origins"),
    )
    op.create_table(
        "answers",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("plan_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name="fk_answers_plan_id"),
        sa.PrimaryKeyConstraint("digest", name="pk_answers"),
    )
    op.execute(
        "INSERT INTO answers (digest, plan_id, created_at) "
        "SELECT digest, plan_id, created_at FROM plan_requests"
    )
    op.execute(
        "INSERT INTO plan_origins (plan_id, profile_digest, options, created_at) "
        "SELECT plan_id, profile_digest, options, created_at FROM plan_requests AS asked "
        "WHERE digest = (SELECT digest FROM plan_requests AS newest "
        "WHERE newest.plan_id = asked.plan_id ORDER BY created_at DESC, digest LIMIT 1)"
    )
    op.drop_table("plan_requests")
