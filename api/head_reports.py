"""Whether what a sample says of heads can be true of the plan that is live."""

import numpy as np

from api.errors import bad_field
from api.schemas import SampleBody
from profiles.cost.work import budget_pieces
from profiles.sizes import causal_pieces
from solver.plans import Plan

COUNTS_MAY_DIFFER = 2.0
"""Executors report what they really counted; a report further off is not of this plan's work."""


def check_heads(sample: SampleBody, plan: Plan, field: str) -> None:
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


def heads_believable(sample: SampleBody, plan: Plan) -> bool:
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


def _shares(sample: SampleBody, plan: Plan) -> dict[int, float]:
    """The heads that the sample's device computes in its layer, and how much of each."""
    return {
        head: entry.share
        for head, entries in enumerate(plan.layers[sample.layer].heads)
        for entry in entries
        if entry.device == sample.device
    }
