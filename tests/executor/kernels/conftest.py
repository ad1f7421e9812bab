"""Half of what the kernels' tests would take is what Triton's interpreter does for nothing."""

from benchmarks.gpu import interpreter

interpreter.spare()
