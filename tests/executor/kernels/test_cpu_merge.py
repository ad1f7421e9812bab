"""Merging what devices computed, by log-sum-exp."""

import math

import pytest
import torch

from tests.executor.kernels.merged import merge


def test_parts_without_keys_are_left_out():
    outs = torch.tensor([[[1.0], [torch.nan]], [[5.0], [torch.nan]], [[torch.nan]] * 2])
    lses = torch.tensor([[0.0, -math.inf], [math.log(3.0), -math.inf], [-math.inf] * 2])
    out, lse = merge(outs, lses)
    assert torch.allclose(out, torch.tensor([[4.0], [0.0]]))
    assert torch.allclose(lse, torch.tensor([math.log(4.0), -math.inf]))


def test_merging_keeps_the_dtype_and_large_log_sum_exps():
    out, lse = merge(torch.tensor([[1.0], [3.0]], dtype=torch.float16), torch.tensor([1e4, 1e4]))
    assert out.dtype == torch.float16
    assert (float(out), float(lse)) == (2.0, pytest.approx(1e4 + math.log(2)))
