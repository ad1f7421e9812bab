"""What a request asks of budgets: the `budget` of `POST /plan`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Policy = Literal[
    "profile",
    "uniform",
    "recovery",
    "max_min",
    "max_min_shifting",
    "least_error",
    "elastic",
]
Curve = Literal["selected", "oracle"]
Error = Literal["output", "gradient"]
FLOORED = ("max_min", "max_min_shifting", "least_error")
SIZED = ("uniform", *FLOORED)
FLOOR_TOKENS = 128
"""What every head keeps ("a small value such as 128", S-HPLB, section 3.2)."""
MAX_CONTEXT = 16 * 2**20

Context = Annotated[int, Field(ge=1, le=MAX_CONTEXT)]


class BudgetOptions(BaseModel):
    """How many tokens each head may attend to.

    What was not asked for before it could be is left out of the JSON at its default, so that older
    requests keep their digests.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    policy: Policy = "profile"
    """How budgets are chosen."""
    tokens: Context | None = None
    """Mean tokens per head: of every policy but `profile` and `recovery`."""
    recovery: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.9
    """Share of attention mass to reach: of `recovery`, and of `profile` where it has curves."""
    scope: Literal["layer", "model"] = "layer"
    """A total is kept within each layer, or over the model."""
    total: Literal["tiles", "tokens"] = "tiles"
    """What the total counts: work, or tokens as in the paper."""
    density: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    """Mean attended share that `elastic` holds; or give `tokens`."""
    contexts: Annotated[list[Context], Field(min_length=1)] | None = None
    """Of `elastic`: where the density holds besides the workload's context; at a half and a quarter
    of it unless given."""
    fill: bool = False
    """Spend what idles after placement on larger budgets; needs recovery curves."""
    curve: Annotated[Curve | None, Field(exclude_if=lambda curve: curve is None)] = None
    """Whose recovery budgets are chosen by: what the executor's selector captures, or the best
    pieces would. Unless given, `selected` where the profile has it. Curves that fall are
    levelled."""
    margin: Annotated[
        float, Field(ge=0, le=100, allow_inf_nan=False, exclude_if=lambda margin: margin == 0)
    ] = 0.0
    """Choose by the mean over prompts less so many standard deviations; what a plan reports stays
    the mean. Needs a profile with its spread."""
    floor_tokens: Annotated[
        int, Field(ge=1, le=MAX_CONTEXT, exclude_if=lambda tokens: tokens == FLOOR_TOKENS)
    ] = FLOOR_TOKENS
    """What every head keeps under `max_min`, `max_min_shifting` and `least_error`, rounded up to
    pieces."""
    error: Annotated[Error, Field(exclude_if=lambda error: error == "output")] = "output"
    """Of `least_error`: what a budget does to the heads' output, plain or weighed by the loss'
    gradient there."""
    loss: Annotated[
        Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None,
        Field(exclude_if=lambda loss: loss is None),
    ] = None
    """Of `least_error`, instead of `tokens`: the cheapest budgets whose predicted increase of the
    model's loss, in nats a token, is at most this by the upper end of its interval. Needs a profile
    that `hplb calibrate` has seen."""

    def fault(self) -> str | None:
        """What does not go together, beginning with the field's name."""
        if self.loss is not None and self.policy != "least_error":
            return f"loss: is for policy 'least_error', not {self.policy!r}"
        if self.loss is not None and self.tokens is not None:
            return "loss: decides how many tokens there are; give loss or tokens, not both"
        if self.loss is not None and self.error != "output":
            return "loss: is predicted from output errors; it is not for error 'gradient'"
        if self.tokens is not None and self.policy in ("profile", "recovery"):
            return (
                f"tokens: policy {self.policy!r} takes none; it is for {', '.join(SIZED)} and "
                "elastic"
            )
        if self.tokens is None and self.loss is None and self.policy in SIZED:
            instead = " or a loss" if self.policy == "least_error" else ""
            return f"tokens: policy {self.policy!r} needs the mean tokens per head{instead}"
        if self.policy == "elastic" and (self.density is None) == (self.tokens is None):
            return "density: policy 'elastic' needs density, or tokens instead"
        if self.policy != "elastic" and (self.density is not None or self.contexts is not None):
            return f"density: density and contexts are for policy 'elastic', not {self.policy!r}"
        if self.policy not in FLOORED and self.floor_tokens != FLOOR_TOKENS:
            return f"floor_tokens: is for {', '.join(FLOORED)}, not {self.policy!r}"
        if self.policy != "least_error" and self.error != "output":
            return f"error: is for policy 'least_error', not {self.policy!r}"
        if self.policy == "least_error" and self.margin and not self.fill:
            return "margin: policy 'least_error' chooses by no curve of recovery"
        if self.policy == "uniform" and not self.fill and self.margin:
            return "margin: policy 'uniform' chooses by no curve"
        return None
