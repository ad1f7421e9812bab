"""Tiles are dense or gathered, and rows sampled to choose by are no tiles.

Rates are told apart as what they meant. What was counted of samples cannot be: their seconds stay.

Revision: 0004, follows 0003.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    rates = sa.table("rates", sa.column("id"), sa.column("body"))
    for number, body in connection.execute(sa.select(rates.c.id, rates.c.body)).all():
        fields = json.loads(body)
        for by_feature in (fields["seconds_per"], fields["std"]):
            if by_feature is not None:
                tile = by_feature.pop("tile_flops")
                beyond = by_feature.pop("sparse_tile_flops", 0.0)
                by_feature["dense_tile_flops"] = by_feature["sampled_flops"] = tile
                by_feature["gathered_tile_flops"] = tile + beyond
        told_apart = rates.update().where(rates.c.id == number).values(body=json.dumps(fields))
        connection.execute(told_apart)
    op.execute("UPDATE samples SET work = '{}'")
