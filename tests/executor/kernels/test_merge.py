"""Merging by log-sum-exp, in Triton's interpreter."""

import math

import pytest
import torch

from executor.kernels.decode_layout import PADDING
from executor.kernels.triton.merge import merge
from tests.executor.kernels.reference import relative_error

# A row without keys has the logarithm of 0 for its log-sum-exp.
pytestmark = pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")


def test_merge_joins_pieces_into_rows_anywhere():
    generator = torch.Generator().manual_seed(3)
    partial_out = torch.randn(40, 2, 16, generator=generator)
    partial_lse = torch.randn(40, 2, generator=generator) * 20
    partial_lse[4] = -math.inf
    pieces = torch.tensor([[0, 3], [3, 35], [4, 1], [39, 0]], dtype=torch.int32)
    heads = torch.tensor([0, 1, 2, 0])[:, None].expand(-1, 2).int()
    tokens = torch.tensor([[1, 2], [0, 3], [2, 0], [3, 0]], dtype=torch.int32)
    heads[2, 0] = PADDING
    out, lse = torch.full((3, 4, 16), torch.nan), torch.full((3, 4), torch.nan)
    merge(partial_out, partial_lse, pieces, heads, tokens, out, lse)
    written = torch.zeros(3, 4, dtype=torch.bool)
    for d, (first, number) in enumerate(pieces.tolist()):
        for r in range(2):
            at = (int(heads[d, r]), int(tokens[d, r]))
            if at[0] < 0:
                continue
            written[at] = True
            part_lse = partial_lse[first : first + number, r].double() * math.log(2)
            wanted = part_lse.logsumexp(0) if number else torch.tensor(-math.inf)
            assert lse[at] == wanted == -math.inf or abs(lse[at] - wanted) < 1e-5
            if wanted == -math.inf:
                assert (out[at] == 0).all()
                continue
            weights = (part_lse - wanted).exp()[:, None]
            whole = (partial_out[first : first + number, r].double() * weights).sum(0)
            assert relative_error(out[at], whole) < 1e-5
    assert torch.equal(written, ~lse.isnan())
