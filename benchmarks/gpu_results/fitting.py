"""Rates of a GPU type from the calls that were timed on it, with the refit of the service itself.

Rates are those of blocks and pieces of 64 tokens, which plans have unless asked otherwise; calls of
other sizes only show how far off the same rates are there. What no call did keeps the data sheet's
rate.

A prefill's lists and its bytes grow together wherever a device's heads fill their KV groups alike,
and only calls on few heads of many groups tell their rates apart. So what is believed beforehand
must be of the right size where the data sheet's peak is far from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.gpu_results.calls import Call, calls, features
from benchmarks.gpu_results.reading import FOLDER, Results
from profiles.catalogue import device_profile
from profiles.cost.rates import Rates
from profiles.cost.regression import Refit, refit
from profiles.cost.roofline import fastest_possible_s, roofline
from profiles.cost.samples import SHORTEST_S, Sample
from profiles.cost.work import FEATURES, Phase
from profiles.device import DeviceProfile
from profiles.sizes import DEFAULT_BLOCK_TOKENS

PHASES: tuple[Phase, ...] = ("prefill", "decode")
HEAD_DIM = 128
LIST_BLOCKS = 2
"""What a list costs besides its blocks, in blocks: assumed where no call tells."""
LEAST_CALLS = 10
"""Of a phase: fewer are no reason to give up the rates that are known."""


@dataclass(frozen=True)
class Fit:
    """Rates of a phase and what became of its calls: `impossible` are faster than the chip."""

    refit: Refit
    impossible: tuple[Call, ...]


@dataclass(frozen=True)
class Error:
    """|predicted - measured| / measured over the calls of a kind."""

    kind: str
    calls: int
    median: float
    worst: float
    fitted: bool


def fits(results: Results) -> list[Fit]:
    """Of every phase of which enough was measured."""
    every = calls(results)
    return [fit for phase in PHASES if (fit := _fit(results, phase, every)) is not None]


def _fit(results: Results, phase: Phase, every: Sequence[Call]) -> Fit | None:
    device = device_profile(results.device)
    counting = [call for call in every if _counts(call, phase)]
    impossible = tuple(call for call in counting if _impossible(device, call))
    usable = [call for call in counting if not _impossible(device, call)]
    if sum(call.work["phase"] == phase for call in usable) < LEAST_CALLS:
        return None
    samples = [
        Sample(features(c.work), c.seconds, context_tokens=c.work.get("context_tokens", 1))
        for c in usable
    ]
    seen = np.any([sample.work for sample in samples], axis=0)
    kept = [name for name, here in zip(FEATURES, seen, strict=True) if not here]
    where = ", ".join(str(FOLDER / file) for file in results.files)
    size, missing = DEFAULT_BLOCK_TOKENS, ", ".join(kept) or "nothing"
    source = (
        f"our kernels on {results.machine['gpu']}, commit {results.machine['commit'][:7]}, blocks "
        f"and pieces of {size}: {where}; not measured: {missing}"
    )
    prior = _prior(device, phase)
    found = refit(prior, device, samples)
    # Not as a prior of a prior, whose own source a later refit would leave out.
    told = found.rates.model_copy(update={"source": f"{source}; believed before: {prior.source}"})
    return Fit(replace(found, rates=told), impossible)


def _prior(device: DeviceProfile, phase: Phase) -> Rates:
    """The data sheet's, with an assumed fixed cost of a prefill's list, and pages' bounds read.

    In decode a scored piece is its least and greatest keys, 16 bits each.
    """
    sheet = roofline(device, phase)
    if phase == "prefill":
        block_flops = 4 * DEFAULT_BLOCK_TOKENS**2 * HEAD_DIM
        list_s = LIST_BLOCKS * block_flops * sheet.seconds_per["dense_tile_flops"]
        better, assumed = {"query_blocks": list_s}, f"{LIST_BLOCKS} blocks a list"
    else:
        bounds_bytes = 2 * 2 * HEAD_DIM
        better = {"scored_blocks": bounds_bytes * sheet.seconds_per["kv_bytes"]}
        assumed = "the bytes of a piece's bounds a scored pair"
    return sheet.model_copy(
        update={
            "seconds_per": sheet.seconds_per | better,
            "source": f"{sheet.source}, {assumed} assumed",
        }
    )


def _counts(call: Call, phase: Phase) -> bool:
    """Whether the phase's rates are fitted on a call."""
    work = call.work
    if work["phase"] == "projection":
        return True
    # A decode has no query blocks.
    sizes = (work["piece_tokens"], work.get("block_tokens", DEFAULT_BLOCK_TOKENS))
    return bool(work["phase"] == phase and set(sizes) == {DEFAULT_BLOCK_TOKENS})


def _impossible(device: DeviceProfile, call: Call) -> bool:
    """Whether no run of it can have been so short; differences of two times may be below 0."""
    least = max(float(fastest_possible_s(device, features(call.work))), SHORTEST_S)
    return not call.seconds >= least


def errors(results: Results, rates: Sequence[Rates]) -> list[Error]:
    """How far the rates are off on every kind of call, those not fitted on included."""
    by_phase = {each.phase: each for each in rates}
    device = device_profile(results.device)
    off: dict[str, list[float]] = {}
    fitted: dict[str, bool] = {}
    for call in calls(results):
        phase = call.work["phase"]
        if phase not in by_phase or _impossible(device, call):
            continue
        predicted = by_phase[phase].seconds(features(call.work))
        off.setdefault(call.kind, []).append(abs(float(predicted) / call.seconds - 1))
        fitted[call.kind] = _counts(call, phase)
    return [
        Error(kind, len(each), float(np.median(each)), max(each), fitted[kind])
        for kind, each in sorted(off.items())
    ]
