"""The kernels' tests are spared what Triton's interpreter does for nothing."""

from benchmarks.gpu import interpreter

interpreter.spare()
