"""What stock engines run on: the largest groups by which a model's heads divide."""

import pytest

from profiles.architecture import Architecture
from solver.report.stock_base import StockBase, stock_base


@pytest.mark.parametrize(
    ("query", "kv", "gpus", "base"),
    [
        (32, 8, 8, StockBase(8, 1)),
        (32, 8, 16, StockBase(16, 1)),  # each KV head on two ranks
        (9, 3, 2, StockBase(1, 2)),
        (9, 3, 6, StockBase(3, 2)),
        (32, 8, 6, StockBase(2, 3)),  # 4 divide the heads, but not the devices
        (12, 12, 8, StockBase(4, 2)),
        (24, 4, 6, StockBase(2, 3)),  # 6 divide the query heads alone
        (25, 5, 1, StockBase(1, 1)),
    ],
)
def test_ranks_divide_the_heads_and_the_devices(
    query: int, kv: int, gpus: int, base: StockBase
) -> None:
    shape = Architecture(layers=1, query_heads=query, kv_heads=kv, head_dim=64, hidden_size=64)
    assert stock_base(shape, gpus) == base
