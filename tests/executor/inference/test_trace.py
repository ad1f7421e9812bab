import math

import torch

from executor.inference.policy import Attended
from executor.inference.trace import Trace


def test_calls_are_summed():
    trace = Trace(2, 3)
    assert math.isnan(trace.share)
    assert trace.recovery().isnan().all()
    nothing = torch.empty(0)
    trace.add(0, Attended(nothing, 3, 6))
    trace.add(0, Attended(nothing, 1, 2, torch.tensor([1.0, 0.5, math.nan])))
    trace.add(0, Attended(nothing, 2, 4, torch.tensor([0.5, math.nan, math.nan])))
    assert (trace.calls, trace.tiles, trace.dense_tiles, trace.share) == (3, 6, 12, 0.5)
    wanted = torch.full((2, 3), math.nan, dtype=torch.float64)
    wanted[0, :2] = torch.tensor([0.75, 0.5])
    assert torch.equal(trace.recovery().nan_to_num(-1), wanted.nan_to_num(-1))
