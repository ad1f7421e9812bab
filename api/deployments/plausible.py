"""Whether a batch can be true of the plan that is live: what is refused, what is not believed."""

from collections import Counter
from collections.abc import Collection

import numpy as np

from api.client.bodies import DeviceSample
from api.problems import bad_field
from profiles.catalogue import device_profile
from profiles.cost.roofline import fastest_possible_s
from profiles.cost.work import FEATURES, Floats, budget_pieces
from profiles.sizes import causal_pieces
from solver.plans import Plan

COUNTS_MAY_DIFFER = 2.0
"""Executors report what they really counted; a report further off is not of this plan's work."""


def check_places(
    samples: list[DeviceSample], node_id: str, part: Collection[int], layers: Collection[int]
) -> None:
    """Raises Problem: 422 for devices and layers that a node does not run, or that come twice."""
    for i, sample in enumerate(samples):
        if sample.device not in part:
            raise bad_field(
                f"samples.{i}.device",
                f"node {node_id!r} plays devices {part}, not {sample.device}",
            )
        if sample.layer not in layers:
            raise bad_field(f"samples.{i}.layer", f"layer {sample.layer} is not one of {layers}")
    (place, times), *_ = Counter((s.layer, s.device) for s in samples).most_common(1)
    if times > 1:
        raise bad_field(
            "samples",
            f"layer {place[0]} of device {place[1]} comes {times} times; one batch is one round",
        )


def check_heads(sample: DeviceSample, plan: Plan, field: str) -> None:
    """Raises Problem: 422 for heads that the device does not compute, or one that comes twice."""
    if sample.heads is None:
        return
    if plan.workload.phase != "prefill":
        raise bad_field(field, "recovery is reported of whole prompts; the plan decodes")
    here = _shares(sample, plan)
    seen = set()
    for i, report in enumerate(sample.heads):
        if report.head not in here:
            raise bad_field(
                f"{field}.{i}.head",
                f"device {sample.device} computes heads {sorted(here)} of layer {sample.layer}, "
                f"not {report.head}",
            )
        if report.head in seen:
            raise bad_field(f"{field}.{i}.head", f"head {report.head} comes twice")
        seen.add(report.head)


def work_counts(sample: DeviceSample, field: str) -> list[float]:
    """A sample's work as `[FEATURES]`; raises Problem: 422 for a feature that nobody knows."""
    unknown = sorted(set(sample.work) - set(FEATURES))
    if unknown:
        raise bad_field(field, f"unknown feature {unknown[0]!r}; known are {', '.join(FEATURES)}")
    return [sample.work.get(feature, 0.0) for feature in FEATURES]


def believable(sample: DeviceSample, work: Floats, planned: Floats, plan: Plan) -> bool:
    """Whether it is the work the plan gave the device, and a chip of its type could be so fast.

    `work` and `planned` [FEATURES].
    """
    near = (work <= COUNTS_MAY_DIFFER * planned) & (work * COUNTS_MAY_DIFFER >= planned)
    chip = device_profile(plan.devices[sample.device])
    fast_enough = sample.seconds >= fastest_possible_s(chip, work)
    return bool(near.all() and fast_enough) and _heads_believable(sample, plan)


def _heads_believable(sample: DeviceSample, plan: Plan) -> bool:
    """Whether rows and tiles are near the plan's; a share's ends may be off by a query block."""
    step, here = plan.workload.workload, _shares(sample, plan)
    for report in sample.heads or []:
        budget = plan.budgets[sample.layer][report.head]
        pieces = budget_pieces(np.array(budget), step)
        whole = int(causal_pieces(pieces, step.context_blocks, step.block_pieces))
        tiles = here[report.head] * whole
        low, high = tiles / COUNTS_MAY_DIFFER - pieces, COUNTS_MAY_DIFFER * tiles + pieces
        if not step.batch_size * low <= report.tiles <= step.batch_size * high:
            return False
        if report.rows > step.batch_size * step.context_tokens:
            return False
    return True


def _shares(sample: DeviceSample, plan: Plan) -> dict[int, float]:
    """The heads that the sample's device computes in its layer, and how much of each."""
    return {
        head: entry.share
        for head, entries in enumerate(plan.layers[sample.layer].heads)
        for entry in entries
        if entry.device == sample.device
    }
