"""A traffic as kinds of steps and how often each is run: of counted requests, or as learnt."""

from collections.abc import Sequence
from dataclasses import dataclass

from profiles.cost.rates import RatesOf
from profiles.cost.work import Phase
from profiles.traffic import StepClass, Traffic
from solver.planning.frequency import frequencies
from solver.plans import Plan


@dataclass(frozen=True)
class Steps:
    """Steps alike: the traffic has `times` of them, or one learnt as many in a second of attention.

    Of so many `requests`, where those were counted.
    """

    phase: Phase
    context_tokens: int
    batch_size: int
    times: float
    requests: int | None = None


def counted(traffic: Traffic, decode_batch: int) -> list[Steps]:
    """A prefill of every request, and where outputs are known decodes of `decode_batch` sequences
    behind half of what is made."""
    found = []
    for requests, prompt, made in traffic.classes():
        found.append(Steps("prefill", prompt, 1, requests, requests))
        if made:
            behind = prompt + made // (2 * requests)
            times = made / decode_batch
            found.append(Steps("decode", behind, decode_batch, times, requests))
    return found


def learnt(live: Plan, traffic: Sequence[StepClass], rates: RatesOf) -> list[Steps]:
    """What an engine was seen to run under the `live` plan, by shares of time."""
    often = frequencies(live, traffic, rates)
    return [
        Steps(each.phase, each.context_tokens, each.batch_size, times)
        for each, times in zip(traffic, often, strict=True)
    ]
