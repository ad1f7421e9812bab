"""The request's fields as command-line flags, shared by `hplb plan` and `hplb compare`."""

from typing import Annotated, Any

import typer
from pydantic import ValidationError

from profiles.errors import HplbError
from profiles.model import describe
from solver.request import PlanRequest

Profile = Annotated[
    str, typer.Option("--profile", "-p", help="A profile's name or the path of its JSON.")
]
DeviceType = Annotated[str, typer.Option(help="Device type of the catalogue, with --gpus.")]
Context = Annotated[
    int, typer.Option("--context", "--context-tokens", help="Context length in tokens.")
]
Phase = Annotated[str, typer.Option(help="prefill or decode.")]
Batch = Annotated[int, typer.Option("--batch-size", help="Sequences in the step.")]
Policy = Annotated[
    str,
    typer.Option(
        "--budget-policy", help="profile, uniform, recovery, max_min or max_min_shifting."
    ),
]
BudgetTokens = Annotated[int | None, typer.Option(help="Mean tokens per head of the budget.")]
BudgetRecovery = Annotated[float, typer.Option(help="Share of attention mass to reach.")]
BudgetScope = Annotated[str, typer.Option(help="Max-min within each layer, or over the model.")]
BudgetTotal = Annotated[str, typer.Option(help="What max-min keeps fixed: tiles or tokens.")]
Unit = Annotated[str, typer.Option(help="What is placed as one: head or kv_group.")]
EqualCounts = Annotated[
    bool, typer.Option("--equal-counts", help="The same number of units on every device.")
]
TimeLimit = Annotated[float, typer.Option("--time-limit", help="Seconds to search, per plan.")]
Tolerance = Annotated[float, typer.Option(help="Gap at which a plan counts as optimal.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

DEFAULT_CONTEXT = 131_072


class RequestError(HplbError):
    """A flag or a field of the request is wrong; named in the message."""


def build_request(**fields: Any) -> PlanRequest:
    """A request from flags; errors name the field."""
    try:
        return PlanRequest.model_validate(fields)
    except ValidationError as error:
        raise RequestError(describe(error)) from None


def device_groups(text: str) -> list[dict[str, Any]]:
    """`h200:4,a100:4` as the request's `devices`."""
    groups = []
    for part in text.split(","):
        name, _, count = part.strip().partition(":")
        if not name or (count and not count.isdecimal()):
            raise RequestError(
                f"devices: {part.strip()!r} is not TYPE or TYPE:COUNT, e.g. h200:4,a100:4"
            )
        groups.append({"type": name, "count": int(count or 1)})
    return groups
