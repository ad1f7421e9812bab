"""The request's fields as command-line flags, shared by `hplb plan` and `hplb compare`."""

from typing import Annotated, Any, get_args

import typer

from profiles.catalogue import device_names
from profiles.cli.flags import FlagError
from solver.budgets.options import Policy as BudgetPolicy

DeviceType = Annotated[
    str,
    typer.Option(
        help="Device type of the catalogue, with --gpus.",
        autocompletion=lambda: list(device_names()),
    ),
]
Context = Annotated[int, typer.Option("--context", help="Context length in tokens.")]
Phase = Annotated[str, typer.Option(help="prefill or decode.")]
Batch = Annotated[int, typer.Option("--batch-size", help="Sequences in the step.")]
Policy = Annotated[
    str | None,
    typer.Option(
        "--budget-policy",
        help="profile, dense, uniform, recovery, max_min, max_min_shifting, least_error or "
        "elastic. "
        "Unless given: least_error where the profile was calibrated for it, else profile.",
        autocompletion=lambda: list(get_args(BudgetPolicy)),
    ),
]
BudgetTokens = Annotated[int | None, typer.Option(help="Mean tokens per head of the budget.")]
BudgetLoss = Annotated[
    float | None,
    typer.Option(
        help="Instead of a total: the cheapest budgets predicted to cost at most so many nats a "
        "token; of policy least_error."
    ),
]
BudgetRecovery = Annotated[float, typer.Option(help="Share of attention mass to reach.")]
BudgetScope = Annotated[
    str | None,
    typer.Option(
        help="Share a total out within each layer, or over the model; unless given, model under "
        "least_error, else layer."
    ),
]
BudgetTotal = Annotated[str, typer.Option(help="What the total counts: tiles or tokens.")]
BlockTokens = Annotated[
    int | None,
    typer.Option(help="Tokens a block: 16, 32, 64 or 128; the profile's own, or 64, unless given."),
]
PieceTokens = Annotated[
    int | None,
    typer.Option(help="Tokens a key piece, which divide a block's; the same unless given."),
]
Curve = Annotated[
    str | None,
    typer.Option(
        "--curve",
        help="Choose by what the executor's selector captures, or the best pieces would: "
        "selected (where the profile has it) or oracle.",
    ),
]
Margin = Annotated[
    float,
    typer.Option("--margin", help="Choose by the mean over prompts less so many deviations."),
]
Floor = Annotated[
    int,
    typer.Option("--floor-tokens", help="Of a total that is shared out, what every head keeps."),
]
BudgetDensity = Annotated[
    float | None, typer.Option(help="Of policy elastic: mean attended share to hold.")
]
BudgetContexts = Annotated[
    str | None, typer.Option(help="Of policy elastic: contexts to hold it at, comma-separated.")
]
Fill = Annotated[
    bool, typer.Option("--fill", help="Spend idle time on larger budgets (needs curves).")
]
AsChosen = Annotated[
    bool,
    typer.Option(
        "--as-chosen", help="Keep budgets where choosing pieces takes as long as it saves, too."
    ),
]
Unit = Annotated[str, typer.Option(help="What is placed as one: head or kv_group.")]
EqualCounts = Annotated[
    bool, typer.Option("--equal-counts", help="The same number of units on every device.")
]
Divisible = Annotated[bool, typer.Option("--divisible", help="Let several devices share a head.")]
MaxCopies = Annotated[int | None, typer.Option(help="At most so many devices share a head.")]
Copies = Annotated[
    str, typer.Option(help="priced: a K/V copy costs its projection or transfer; free: nothing.")
]
Slots = Annotated[
    str | None,
    typer.Option(help="KV slots of every device, padded, as engines have them: a number or auto."),
]
Memory = Annotated[
    bool, typer.Option("--memory", help="Keep weights and K/V within the devices' memory.")
]
KvRetention = Annotated[
    str | None, typer.Option(help="What K/V stays: full or budget; implies --memory.")
]
MemoryLimit = Annotated[int | None, typer.Option(help="Bytes a device may hold; implies --memory.")]
NodeSize = Annotated[
    int | None, typer.Option(help="Devices of a node: share out over nodes first.")
]
Seed = Annotated[int | None, typer.Option(help="Search repeatably, with one worker.")]
TimeLimit = Annotated[float, typer.Option("--time-limit", help="Seconds for the whole plan.")]
Tolerance = Annotated[float, typer.Option(help="Gap at which a plan counts as optimal.")]


def budget(
    policy: str | None,
    tokens: int | None,
    loss: float | None,
    recovery: float,
    scope: str | None,
    total: str,
    curve: str | None,
    margin: float,
    floor_tokens: int,
) -> dict[str, object]:
    """The request's `budget` from its flags."""
    return {
        "policy": policy,
        "tokens": tokens,
        "loss": loss,
        "recovery": recovery,
        "scope": scope,
        "total": total,
        "curve": curve,
        "margin": margin,
        "floor_tokens": floor_tokens,
    }


def slots(asked: str | None) -> int | str | None:
    """The request's `placement.slots`: a number, or as it stands."""
    return int(asked) if asked is not None and asked.isdecimal() else asked


def memory(asked: bool, retention: str | None, limit: int | None) -> dict[str, object] | None:
    """The request's `placement.memory` from its flags, or None where none was given."""
    if not asked and retention is None and limit is None:
        return None
    return {"kv_retention": retention or "full", "limit_bytes": limit}


def device_groups(text: str) -> list[dict[str, Any]]:
    """`h200:4,a100:4` as the request's `devices`."""
    groups = []
    for part in text.split(","):
        name, _, count = part.strip().partition(":")
        if not name or (count and not count.isdecimal()):
            raise FlagError(
                f"--devices: {part.strip()!r} is not TYPE or TYPE:COUNT, e.g. h200:4,a100:4"
            )
        groups.append({"type": name, "count": int(count or 1)})
    return groups
