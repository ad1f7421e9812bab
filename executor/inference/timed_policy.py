"""What a policy takes, layer by layer: prompts and decodes apart."""

import time
from dataclasses import dataclass, field

import torch

from executor.inference.policy import Attended, LayerCall, Policy


@dataclass(eq=False)
class TimedPolicy:
    """A policy, and the seconds of its calls summed by layer, `[layers]`.

    On a CPU they are seconds that the calling thread had a core, so that a busy machine's other
    processes do not count; with several threads to compute on they would not be the whole.
    """

    policy: Policy
    layers: int
    prompt_s: list[float] = field(init=False)
    decode_s: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_s, self.decode_s = ([0.0] * self.layers for _ in range(2))

    def attend(self, call: LayerCall) -> Attended:
        """Attention of one layer's call."""
        begin = _now(call.q.device)
        found = self.policy.attend(call)
        kind = self.decode_s if call.decodes else self.prompt_s
        kind[call.layer] += _now(call.q.device) - begin
        return found


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.thread_time()
