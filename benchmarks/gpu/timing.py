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
GRAPH_LEAD_CYCLES = 400_000
"""The same for the one launch of a captured graph."""
MOST_SETS = 64
MOST_OF_MEMORY = 0.5
"""Of the device's, for all sets of inputs together."""
LEAST_SAMPLES, MOST_SAMPLES = 3, 200


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
    """How many sets of inputs of `bytes_each` are needed so that none is met in the L2.

    One set that is L2_ROUNDS times the L2 has left it again before it is read anew.
    """
    if not torch.cuda.is_available():
        return 1
    l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size
    wanted = -(-L2_ROUNDS * l2_bytes // bytes_each)
    return max(1, min(wanted, room_bytes() // bytes_each, MOST_SETS))


def room_bytes() -> int:
    """What all sets of inputs may take together; on a CPU, where they are tiny, nothing."""
    if not torch.cuda.is_available():
        return 0
    return int(MOST_OF_MEMORY * torch.cuda.get_device_properties(0).total_memory)


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
    lead = GRAPH_LEAD_CYCLES if graph else HOST_LEAD_CYCLES
    samples = _events(calls[:1], lead)
    count = min(max(int(seconds / max(samples[0], 1e-6)), LEAST_SAMPLES), MOST_SAMPLES)
    samples += _events([calls[i % len(calls)] for i in range(1, count)], lead)
    low, middle, high = torch.tensor(samples).quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    return Timed(middle / per_call, low / per_call, high / per_call, count, graph)


def _events(calls: Sequence[Call], lead_cycles: int) -> list[float]:
    """Seconds of every call by CUDA events."""
    pairs = []
    for call in calls:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(lead_cycles)
        start.record()
        call()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in pairs]
