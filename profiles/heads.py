"""What the heads of a model need, in one of four forms. Every array is [layers, query_heads, ...].

Where a source only knows KV heads, the query heads of a group share its figures.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from profiles.first_fault import FirstFault
from profiles.left_out import is_none

Floats = NDArray[np.float64]
MAX_TOKENS = 2**31
PositiveTokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Tokens = Annotated[int, Field(ge=0, le=MAX_TOKENS)]


def _require_shares(values: Floats, field: str) -> None:
    _require(
        np.isfinite(values) & (values >= 0) & (values <= 1),
        field,
        ("layer", "head", "context", "point"),
        "must be a share of attention mass from 0 to 1",
    )


def _array(values: object, field: str) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{field}: ragged or not numeric: {error}") from None


def _read_only(values: object) -> Floats:
    made = np.array(values, dtype=np.float64)
    made.flags.writeable = False
    return made


def _require(ok: NDArray[np.bool_], field: str, axes: tuple[str, ...], rule: str) -> None:
    """Raise for the first element that breaks `rule`, naming its place along `axes`."""
    if ok.all():
        return
    where = np.argwhere(~ok)[0]
    place = ", ".join(f"{axis} {index}" for axis, index in zip(axes, where, strict=True))
    raise ValueError(f"{field}: {place}: {rule} ({int((~ok).sum())} such values)")


class _Form(FirstFault, BaseModel):
    # NaN and infinities are let in so that the checks below can name their layer and head.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)


class BudgetsForm(_Form):
    """Tokens of context a query row of each head may attend to, e.g. MInference."""

    form: Literal["budgets"] = "budgets"
    tokens: list[list[float]]

    @model_validator(mode="after")
    def _check(self) -> Self:
        tokens = _array(self.tokens, "tokens")
        _require_dims(tokens, "tokens", ("layer", "head"))
        ok = np.isfinite(tokens) & (tokens >= 1) & (tokens <= MAX_TOKENS)
        _require(ok, "tokens", ("layer", "head"), f"must be a number from 1 to {MAX_TOKENS}")
        return self

    def shape(self) -> tuple[int, int]:
        return len(self.tokens), len(self.tokens[0])


class RulesForm(_Form):
    """Elastic rules: tokens = alpha + beta * context, clipped to (0, context] (MoA)."""

    form: Literal["rules"] = "rules"
    alpha_tokens: list[list[float]]
    beta: list[list[float]]

    @model_validator(mode="after")
    def _check(self) -> Self:
        alpha, beta = _array(self.alpha_tokens, "alpha_tokens"), _array(self.beta, "beta")
        for values, field in ((alpha, "alpha_tokens"), (beta, "beta")):
            _require_dims(values, field, ("layer", "head"))
        if alpha.shape != beta.shape:
            raise ValueError(f"beta: shape {beta.shape} is not alpha_tokens' {alpha.shape}")
        bounded = np.isfinite(alpha) & (np.abs(alpha) <= MAX_TOKENS)
        _require(
            bounded, "alpha_tokens", ("layer", "head"), f"must be finite, at most {MAX_TOKENS}"
        )
        _require(
            np.isfinite(beta) & (beta >= 0) & (beta <= 1),
            "beta",
            ("layer", "head"),
            "must be a share of the context from 0 to 1",
        )
        return self

    def shape(self) -> tuple[int, int]:
        return len(self.beta), len(self.beta[0])


Curves = list[list[list[list[float]]]]
"""[layers][heads][contexts][points]"""
Measured = Annotated[Curves | None, Field(exclude_if=is_none)]
PerError = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class LossPerError(BaseModel):
    """What errors of outputs cost the model: `hplb calibrate`.

    Increase of the loss, in nats a token, by unit of `output_error` summed over all heads: the
    `mean` over so many `prompts` of `context_tokens`, and its 95 % interval from `low` to `high`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: PerError
    low: PerError
    high: PerError
    context_tokens: PositiveTokens
    prompts: Annotated[int, Field(ge=2, le=MAX_TOKENS)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.low <= self.mean <= self.high or not self.mean:
            raise ValueError(
                f"mean: {self.mean} must be above 0 and from low, {self.low}, to high, {self.high}"
            )
        return self


@dataclass(frozen=True, eq=False)
class CurveArrays:
    """The curves of a `CurvesForm` as arrays that nobody may write into, shaped as its lists.

    No two are equal, so that forms which have made them are still compared by their lists.
    """

    budget_tokens: Floats
    recovery: Floats
    selected_recovery: Floats | None


class CurvesForm(_Form):
    """Recovery against budget, per head at several contexts: what measuring a model makes.

    `recovery[layer][head][context][point]` belongs to `budget_tokens[context][point]`: the
    oracle's, a mean over prompts. What only our own measuring fills is left out of the JSON where
    it is missing: `selected_recovery` is what the executor's selector captures of the same
    budgets, `spread` and `selected_spread` their standard deviations over prompts.
    `output_error`, where recovery has its points: how far the selector's pieces leave what the head
    adds to the residual stream, the mean over rows of ||(o_sparse - o_dense) W_O||^2 as a share of
    that row's squared stream. `gradient_error[layer][head][point]`, at the shortest context: the
    mean of (g . (o_sparse - o_dense))^2, g the loss' gradient to the head's output.
    `loss_per_error`: what those errors cost the model's loss.
    `influence[layer][head]` (MoA, arXiv 2406.14909), how much the loss moves with the head's
    attention, is in older profiles: nothing measures or reads it any more.
    """

    form: Literal["recovery_curves"] = "recovery_curves"
    context_tokens: list[PositiveTokens] = Field(min_length=1)
    budget_tokens: list[list[PositiveTokens]]
    recovery: Curves
    selected_recovery: Measured = None
    spread: Measured = None
    selected_spread: Measured = None
    influence: Annotated[list[list[float]] | None, Field(exclude_if=is_none)] = None
    output_error: Measured = None
    gradient_error: Annotated[list[list[list[float]]] | None, Field(exclude_if=is_none)] = None
    loss_per_error: Annotated[LossPerError | None, Field(exclude_if=is_none)] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        contexts = np.asarray(self.context_tokens)
        budgets = _array(self.budget_tokens, "budget_tokens")
        recovery = _array(self.recovery, "recovery")
        _require_dims(budgets, "budget_tokens", ("context", "point"))
        _require_dims(recovery, "recovery", ("layer", "head", "context", "point"))
        if (np.diff(contexts) <= 0).any():
            raise ValueError("context_tokens: must be strictly increasing")
        if budgets.shape[0] != len(contexts) or recovery.shape[2:] != budgets.shape:
            raise ValueError(
                f"recovery: shape {recovery.shape} does not fit {len(contexts)} contexts "
                f"and budget_tokens of shape {budgets.shape}; it must be "
                "[layers, heads, contexts, points]"
            )
        if budgets.shape[1] > 1 and (np.diff(budgets, axis=1) <= 0).any():
            raise ValueError("budget_tokens: must be strictly increasing in each context")
        _require_shares(recovery, "recovery")
        for field in ("selected_recovery", "spread", "selected_spread"):
            values = getattr(self, field)
            if values is not None:
                found = _array(values, field)
                if found.shape != recovery.shape:
                    raise ValueError(f"{field}: shape {found.shape} is not recovery's")
                _require_shares(found, field)
        layers, heads, _, points = recovery.shape
        self._require_sizes("influence", (layers, heads), ("layer", "head"))
        self._require_sizes("output_error", recovery.shape, ("layer", "head", "context", "point"))
        self._require_sizes("gradient_error", (layers, heads, points), ("layer", "head", "point"))
        if self.loss_per_error is not None and self.output_error is None:
            raise ValueError("loss_per_error: is per unit of output_error, which is missing")
        return self

    def _require_sizes(self, field: str, shape: tuple[int, ...], axes: tuple[str, ...]) -> None:
        """Where it is given, figures of this shape that are finite and not negative."""
        if getattr(self, field) is None:
            return
        found = _array(getattr(self, field), field)
        if found.shape != shape:
            names = ", ".join(f"{axis}s" for axis in axes)
            raise ValueError(f"{field}: shape {found.shape} is not [{names}], {shape}")
        finite = np.isfinite(found) & (found >= 0)
        _require(finite, field, axes, "must be finite and not negative")

    def shape(self) -> tuple[int, int]:
        return len(self.recovery), len(self.recovery[0])

    @cached_property
    def arrays(self) -> CurveArrays:
        """Made once: of half a megabyte of JSON it takes as long as a third of a quick plan."""
        selected = self.selected_recovery
        return CurveArrays(
            _read_only(self.budget_tokens),
            _read_only(self.recovery),
            None if selected is None else _read_only(selected),
        )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copied = super().model_copy(update=update, deep=deep)
        # Other curves have other arrays; pydantic would copy what was remembered of these.
        copied.__dict__.pop("arrays", None)
        return copied


class SamplesForm(_Form):
    """Tokens each head kept on each of several requests (TANGRAM).

    `kept_tokens[request][layer][head]`, of a request with `context_tokens[request]`;
    `task[request]` names where the request came from. `fixed_tokens[request]` of what a head kept
    are a sink and a window that every head keeps: as many at any context.
    """

    form: Literal["samples"] = "samples"
    context_tokens: list[PositiveTokens] = Field(min_length=1)
    task: list[str]
    kept_tokens: list[list[list[float]]]
    fixed_tokens: Annotated[list[Tokens] | None, Field(exclude_if=is_none)] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        kept = _array(self.kept_tokens, "kept_tokens")
        _require_dims(kept, "kept_tokens", ("request", "layer", "head"))
        requests = len(self.context_tokens)
        if kept.shape[0] != requests or len(self.task) != requests:
            raise ValueError(
                f"kept_tokens: {kept.shape[0]} requests of figures and {len(self.task)} "
                f"tasks for {requests} context_tokens"
            )
        contexts = np.asarray(self.context_tokens, dtype=np.float64)[:, None, None]
        _require(
            np.isfinite(kept) & (kept >= 0) & (kept <= contexts),
            "kept_tokens",
            ("request", "layer", "head"),
            "must be from 0 to the request's context_tokens",
        )
        if self.fixed_tokens is not None and len(self.fixed_tokens) != requests:
            raise ValueError(
                f"fixed_tokens: {len(self.fixed_tokens)} of them for {requests} context_tokens"
            )
        return self

    def shape(self) -> tuple[int, int]:
        return len(self.kept_tokens[0]), len(self.kept_tokens[0][0])

    def kept_at(self, context_tokens: int) -> Floats:
        """Tokens `[requests, layers, heads]` that heads would keep of another context.

        The fixed ones, and of the context as large a share as they kept beyond those.
        """
        kept = np.array(self.kept_tokens, dtype=np.float64)
        contexts = np.array(self.context_tokens, dtype=np.float64)
        fixed = np.zeros_like(contexts) if self.fixed_tokens is None else self.fixed_tokens
        always = np.minimum(kept, np.reshape(fixed, (-1, 1, 1)))
        grown = always + (kept - always) * (context_tokens / contexts[:, None, None])
        return np.asarray(np.minimum(grown, context_tokens))


def _require_dims(values: Floats, field: str, axes: tuple[str, ...]) -> None:
    if values.ndim != len(axes) or not values.size:
        names = ", ".join(f"{axis}s" for axis in axes)
        raise ValueError(f"{field}: must be a full array [{names}], found shape {values.shape}")


Heads = Annotated[BudgetsForm | RulesForm | CurvesForm | SamplesForm, Field(discriminator="form")]
