"""How a call is timed: CUDA events, the median and its spread, inputs rotated beyond the L2."""

# Parts of torch have no types for mypy to check.
# mypy: disable-error-code="no-untyped-call"

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Call = Callable[[], object]
L2_ROUNDS = 3
"""Bytes that are touched between two uses of the same input, in multiples of the L2."""
HOST_LEAD_CYCLES = 2_000_000
"""The GPU idles about a millisecond first, so that launches are queued before they are due."""
MOST_SETS = 64
MOST_SET_BYTES = 40 * 2**30


@dataclass(frozen=True)
class Timed:
    """Seconds of one call."""

    median_s: float
    p10_s: float
    p90_s: float
    samples: int
    graph: bool = False

    def figures(self, name: str = "") -> dict[str, float | int]:
        """The same as columns of a row, `name_s` the median."""
        prefix = f"{name}_" if name else ""
        return {
            f"{prefix}s": self.median_s,
            f"{prefix}p10_s": self.p10_s,
            f"{prefix}p90_s": self.p90_s,
            f"{prefix}samples": self.samples,
            f"{prefix}in_graph": self.graph,
        }


def rotation(bytes_each: int) -> int:
    """How many sets of inputs of `bytes_each` are needed so that none is met in the L2."""
    if not torch.cuda.is_available():
        return 1
    wanted = L2_ROUNDS * torch.cuda.get_device_properties(0).L2_cache_size
    fitting = max(1, MOST_SET_BYTES // max(bytes_each, 1))
    return min(fitting, MOST_SETS, 1 + -(-wanted // max(bytes_each, 1)))


def timed(calls: Sequence[Call], *, seconds: float = 0.3, graph: bool = False) -> Timed:
    """One call's time, `calls` being the same on rotated inputs; about `seconds` of samples.

    With `graph` all calls are captured in one CUDA graph and a replay is divided by their number:
    what a server that replays its steps sees. Where they cannot be captured, launch by launch and
    `graph` False. On a CPU the wall clock of a single call.
    """
    if not torch.cuda.is_available():
        began = time.perf_counter()
        calls[0]()
        took = time.perf_counter() - began
        return Timed(took, took, took, 1)
    for call in calls:
        call()
    torch.cuda.synchronize()
    if graph:
        try:
            return _sampled([captured(calls)], len(calls), seconds, graph=True)
        except RuntimeError as error:
            print(f"no graph ({str(error)[:200]}): timed launch by launch", flush=True)
            torch.cuda.synchronize()
    return _sampled(calls, 1, seconds, graph=False)


def captured(calls: Sequence[Call]) -> Call:
    """All `calls`, each run before, as one CUDA graph's replay."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    torch.cuda.synchronize()
    return graph.replay


def _sampled(calls: Sequence[Call], per_call: int, seconds: float, *, graph: bool) -> Timed:
    estimate = _events([calls[0]])[0]
    count = min(max(int(seconds / max(estimate, 1e-6)), 3), 200)
    samples = _events([calls[i % len(calls)] for i in range(count)])
    low, middle, high = torch.tensor(samples).quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    return Timed(middle / per_call, low / per_call, high / per_call, count, graph)


def _events(calls: Sequence[Call]) -> list[float]:
    """Seconds of every call by CUDA events."""
    pairs = []
    for call in calls:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(HOST_LEAD_CYCLES)
        start.record()
        call()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in pairs]
