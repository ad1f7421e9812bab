"""What a request asks of budgets: the `budget` of `POST /plan`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from profiles.first_fault import FirstFault
from profiles.heads import CurvesForm
from profiles.left_out import is_none
from profiles.model import ModelProfile
from profiles.sizes import MAX_CONTEXT

Policy = Literal[
    "profile",
    "dense",
    "uniform",
    "recovery",
    "max_min",
    "max_min_shifting",
    "least_error",
    "elastic",
]
Scope = Literal["layer", "model"]
Curve = Literal["selected", "oracle"]
Error = Literal["output", "gradient"]
FLOORED = ("max_min", "max_min_shifting", "least_error")
SIZED = ("uniform", *FLOORED)
FLOOR_TOKENS = 128
"""What every head keeps ("a small value such as 128", S-HPLB, section 3.2)."""
LOSS = 0.02
"""Nats a token that budgets may cost where nothing else is asked for."""
RECOVERY = 0.9

Context = Annotated[int, Field(ge=1, le=MAX_CONTEXT)]


class BudgetOptions(FirstFault, BaseModel):
    """How many tokens each head may attend to.

    What was not asked for before it could be is left out of the JSON at its default, so that older
    requests keep their digests.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    policy: Policy | None = None
    """How budgets are chosen; `dense` is the whole context for every head. Unless given,
    `least_error` where the profile has measured errors and tokens or a loss are given, or it is
    calibrated and nothing is (a loss of 0.02 then); else `profile`."""
    tokens: Context | None = None
    """Mean tokens per head: of every policy but `profile`, `dense` and `recovery`."""
    recovery: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = RECOVERY
    """Share of attention mass to reach: of `recovery`, and of `profile` where it has curves."""
    scope: Scope | None = None
    """A total is kept within each layer, or over the model. Unless given, over the model under
    `least_error`, else within each layer."""
    total: Literal["tiles", "tokens"] = "tiles"
    """What the total counts: work, or tokens as in the paper."""
    density: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    """Mean attended share that `elastic` holds; or give `tokens`."""
    contexts: Annotated[list[Context], Field(min_length=1)] | None = None
    """Of `elastic`: where the density holds besides the workload's context; at a half and a quarter
    of it unless given."""
    fill: bool = False
    """Spend what idles after placement on larger budgets; needs recovery curves."""
    curve: Annotated[Curve | None, Field(exclude_if=is_none)] = None
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
        Field(exclude_if=is_none),
    ] = None
    """Of `least_error`, instead of `tokens`: the cheapest budgets whose predicted increase of the
    model's loss, in nats a token, is at most this by the upper end of its interval. Needs a profile
    that `hplb calibrate` has seen."""

    as_chosen: Annotated[bool, Field(exclude_if=lambda kept: not kept)] = False
    """Leave heads as the policy chose, even where choosing pieces takes as long as it saves: equal
    budgets whatever the rates in force."""

    def settled(self, profile: ModelProfile) -> "BudgetOptions":
        """The same with a policy and a scope, by what the profile knows where none is asked for."""
        policy = self.policy or self._fitting(profile)
        update: dict[str, object] = {"policy": policy}
        if self.scope is None:
            update["scope"] = "model" if policy == "least_error" else "layer"
        if self.policy is None and policy == "least_error" and self.tokens is None:
            update["loss"] = LOSS if self.loss is None else self.loss
        return self.model_copy(update=update)

    def _fitting(self, profile: ModelProfile) -> Policy:
        """What loses least of what the profile allows: benchmarks/results/real_model.json."""
        heads = profile.heads
        if self.loss is not None:
            return "least_error"
        if not isinstance(heads, CurvesForm) or heads.output_error is None:
            return "profile"
        by_recovery = self.recovery != RECOVERY or self.margin > 0
        calibrated = heads.loss_per_error is not None and not by_recovery
        return "least_error" if self.tokens is not None or calibrated else "profile"

    def fault(self) -> str | None:
        """What does not go together, beginning with the field's name."""
        if self.loss is not None and self.policy not in ("least_error", None):
            return f"loss: is for policy 'least_error', not {self.policy!r}"
        if self.loss is not None and self.tokens is not None:
            return "loss: decides how many tokens there are; give loss or tokens, not both"
        if self.loss is not None and self.error != "output":
            return "loss: is predicted from output errors; it is not for error 'gradient'"
        if self.tokens is not None and self.policy in ("profile", "dense", "recovery"):
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
            return f"density: density and contexts are for policy 'elastic'{self._not()}"
        if self.policy not in (*FLOORED, None) and self.floor_tokens != FLOOR_TOKENS:
            return f"floor_tokens: is for {', '.join(FLOORED)}, not {self.policy!r}"
        if self.policy != "least_error" and self.error != "output":
            return f"error: is for policy 'least_error'{self._not()}"
        if self.policy == "least_error" and self.margin and not self.fill:
            return "margin: policy 'least_error' chooses by no curve of recovery"
        if self.policy in ("dense", "uniform") and not self.fill and self.margin:
            return f"margin: policy {self.policy!r} chooses by no curve"
        return None

    def _not(self) -> str:
        return "" if self.policy is None else f", not {self.policy!r}"
