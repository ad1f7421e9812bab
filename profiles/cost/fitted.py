"""Which counts of work each back end's seconds are fitted on; the others cost nothing of their own.

A count that always grows with another one explains nothing, and its rate takes what is the other's.
On a CPU core nothing starts anew with a list or a group (benchmarks/cost_model_cpu.py), and what
a decode receives is the newest token of every list. A GPU has all of them.
"""

from typing import Literal

from profiles.cost.work import FEATURES, Phase

Backend = Literal["torch", "triton"]
"""The executors' back ends: PyTorch on a CPU, Triton on a GPU."""

FITTED: dict[Backend, dict[Phase, tuple[str, ...]]] = {
    "torch": {
        "prefill": tuple(name for name in FEATURES if name not in ("query_blocks", "kv_lists")),
        "decode": tuple(name for name in FEATURES if name not in ("query_blocks", "link_bytes")),
    },
    "triton": {"prefill": FEATURES, "decode": FEATURES},
}
