"""The methods that are compared: what each attends to at a share of dense attention's blocks.

The share of `uniform`, whole blocks the same for every head, sets the target of all others:
they compute at most as many blocks. `top_p` and its oracle choose while they run; their p is
calibrated on other prompts, so that they come close. `bubble_filled` computes more, by design:
`max_min_as_filled` is `max_min` with as many.

What is counted is the prefill's attention. Choosing is not: exact rows cost more than block means,
rules nothing, and the oracle's masses as much as dense attention. Nor is decoding, where a KV
group's list is as long as its largest budget, so that uneven budgets read more. `top_p` estimates
by block means whatever the selection of the others is; `moa` chooses its rules by the profile's
curves, which are not those of sink and nearest blocks.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from executor.errors import EvaluationError
from executor.evaluation.asked import Asked
from executor.evaluation.block_masses import (
    Masses,
    antidiagonal_masses,
    exact_masses,
    pooled_masses,
    sampled_masses,
)
from executor.evaluation.density import Fitted, Ints, Setting, fit, uniform_within
from executor.evaluation.makespan import Devices, filled_budgets, predicted_s
from executor.evaluation.scoring import logits_at_once
from executor.evaluation.top_p import Calibrated, TopP, Watching
from executor.inference.budget_policy import BudgetPolicy
from executor.inference.policy import Policy
from profiles.heads import CurvesForm
from profiles.model import ModelProfile
from profiles.selection import POOLED, Selection, SinkLocal
from profiles.sizes import causal_pieces
from solver.budgets import options
from solver.request import Method as Placement


@dataclass(frozen=True)
class Rule:
    """A method whose budgets a policy of the solver gives. `local`: sink and nearest pieces."""

    policy: options.Policy
    scope: str = "layer"
    local: bool = False
    error: str = "output"


BUDGETED = {
    "streaming_llm": Rule("uniform", local=True),
    "uniform": Rule("uniform"),
    "moa": Rule("elastic", local=True),
    "shifting": Rule("max_min_shifting"),
    "max_min": Rule("max_min"),
    "max_min_model": Rule("max_min", scope="model"),
    "least_error": Rule("least_error"),
    "least_error_model": Rule("least_error", scope="model"),
    "least_gradient_error": Rule("least_error", scope="model", error="gradient"),
}
MEASURED = {
    name: f"{rule.error}_error" for name, rule in BUDGETED.items() if rule.policy == "least_error"
}
"""What a profile's curves must have beside recovery."""
ONLINE: dict[str, Masses] = {
    "top_p": sampled_masses,
    "top_p_pooled": pooled_masses,
    "top_p_oracle": exact_masses,
    "xattention": antidiagonal_masses,
}
FILLED, AS_FILLED, DENSE = "bubble_filled", "max_min_as_filled", "dense"
METHODS = (
    DENSE,
    "streaming_llm",
    "uniform",
    *ONLINE,
    "moa",
    "shifting",
    "max_min",
    "max_min_model",
    "least_error",
    "least_error_model",
    "least_gradient_error",
    FILLED,
    AS_FILLED,
)


@dataclass(frozen=True, eq=False)
class Method:
    """A method at a density; None twice for dense attention, the model as it is.

    tokens [layers, heads]: budgets, for an online method those that compute as much as it did in
    calibration. `selection` chooses blocks within them. `knob` is what was set to fit the density.
    `least_recovery`: of any head, as the profile says, where its curves are of such a selection.
    """

    name: str
    density: float | None
    policy: Policy | None
    tokens: Ints
    selection: Selection
    knob: dict[str, float]
    least_recovery: float | None = None

    @property
    def online(self) -> bool:
        return self.name in ONLINE

    @property
    def setup(self) -> str:
        """Names what it attends to: budgets, selection and knob."""
        content = [self.tokens.tolist(), self.selection.model_dump(), self.knob]
        return sha256(json.dumps(content).encode()).hexdigest()[:16]

    def predicted_s(self, setting: Setting, devices: Devices) -> float:
        """Attention's seconds over all layers as the planner predicts them.

        Heads are placed by `auto`; those of a method that chooses while it runs, whose loads nobody
        knows beforehand, lie in file order.
        """
        placement: Placement = "contiguous" if self.online else "auto"
        return predicted_s(setting, self.tokens, self.selection, devices, placement)


def unusable(names: Sequence[str], profile: ModelProfile) -> dict[str, str]:
    """Those of `names` that the profile has not what they need for, and what that is."""
    heads = profile.heads
    if not isinstance(heads, CurvesForm):
        lacks = f"needs recovery curves, and the profile has the form {heads.form!r}"
        free = {DENSE, "streaming_llm", "uniform", *ONLINE}
        return {name: lacks for name in names if name not in free}
    return {
        name: f"needs {field}, which the profile does not have"
        for name, field in MEASURED.items()
        if name in names and getattr(heads, field) is None
    }


def check_names(names: Sequence[str]) -> None:
    """Raise EvaluationError for a name of no method."""
    for name in names:
        if name not in METHODS:
            raise EvaluationError(f"--methods: {name!r} is unknown; known are {', '.join(METHODS)}")


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes methods for one context. `watched`: what calibration saw, by online method."""

    setting: Setting
    selection: Selection
    devices: Devices
    watched: dict[str, Watching]

    def dense(self) -> Method:
        shape, context = self.setting.profile.heads.shape(), self.setting.context_tokens
        return Method(DENSE, None, None, np.full(shape, context, dtype=np.int64), POOLED, {})

    def at(self, density: float, names: Sequence[str]) -> Iterator[Method]:
        """Those of `names` that have a density, in the order of METHODS."""
        uniform = uniform_within(self.setting, density)
        filled = self._filled(uniform) if {FILLED, AS_FILLED} & set(names) else None
        for name in METHODS:
            if name not in names or name == DENSE:
                continue
            if name in ONLINE:
                yield self._online(name, density, uniform)
            elif name == FILLED and filled is not None:
                yield self._budgeted(name, density, filled, self.selection)
            elif name == AS_FILLED and filled is not None:
                as_filled = self._fitted(BUDGETED["max_min"], filled)
                yield self._budgeted(name, density, as_filled, self.selection)
            else:
                rule = BUDGETED[name]
                sink = SinkLocal(sink_tokens=self.setting.workload.piece_tokens)
                selection = sink if rule.local else self.selection
                yield self._budgeted(name, density, self._fitted(rule, uniform), selection)

    def _filled(self, uniform: Fitted) -> Fitted:
        """`max_min`, and what the planner's idle time buys."""
        pieces = self._fitted(BUDGETED["max_min"], uniform).pieces
        asked = self.setting.options("max_min", "layer", pieces)
        tokens = filled_budgets(self.setting, self.selection, asked, self.devices)
        return Fitted(pieces, tokens, self.setting.tiles(tokens))

    def _fitted(self, rule: Rule, like: Fitted) -> Fitted:
        """Budgets by `rule` that compute at most as many blocks as `like`."""

        def fitted(total: str) -> Fitted:
            def budgets(pieces: int) -> Ints:
                return self.setting.allocate(rule.policy, rule.scope, pieces, total, rule.error)

            return fit(self.setting, budgets, like.tiles, like.pieces)

        if rule.policy != "max_min":
            return fitted("tiles")
        # Held to tokens as shifting is, or to tiles: which leaves more depends on the curves.
        return max(map(fitted, ("tiles", "tokens")), key=self._least)

    def _least(self, fitted: Fitted) -> float:
        return self.setting.least_recovery(fitted.tokens) or 0.0

    def _budgeted(self, name: str, density: float, fitted: Fitted, selection: Selection) -> Method:
        sizes = self.setting.workload
        policy = BudgetPolicy(
            fitted.tokens,
            selection=selection,
            block_tokens=sizes.block_tokens,
            piece_tokens=sizes.piece_tokens,
            as_chosen=True,
        )
        knob = {"mean_tokens": float(fitted.pieces * sizes.piece_tokens)}
        measured = selection == self.setting.profile.selection
        least = self.setting.least_recovery(fitted.tokens) if measured else None
        return Method(name, density, policy, fitted.tokens, selection, knob, least)

    def _online(self, name: str, density: float, uniform: Fitted) -> Method:
        setting = self.setting
        calibrated = Calibrated.at(self.watched[name], uniform.tiles / setting.dense_tiles)
        policy = TopP(calibrated.beyond, setting.block_tokens, ONLINE[name])
        tokens = _tokens_of_shares(calibrated.head_share.numpy(), setting)
        return Method(name, density, policy, tokens, POOLED, {"p": 1 - calibrated.beyond})


def _tokens_of_shares(shares: Any, setting: Setting) -> Ints:
    """Whole-block budgets [layers, heads] that compute nearest to these shares of causal tiles."""
    most = setting.workload.context_blocks
    by_blocks = causal_pieces(np.arange(1, most + 1), most)
    blocks = 1 + np.abs(by_blocks / by_blocks[-1] - np.asarray(shares)[..., None]).argmin(axis=-1)
    tokens = np.minimum(blocks * setting.block_tokens, setting.context_tokens)
    return np.asarray(tokens, dtype=np.int64)


def watch(model: Any, prompts: Sequence[Asked], name: str, setting: Setting) -> Watching:
    """What the online method `name` would keep of prompts at every p."""
    layers, heads = setting.profile.heads.shape()
    watching = Watching(layers, heads, setting.block_tokens, ONLINE[name])
    for prompt in prompts:
        ids = prompt.ids[: prompt.prompt_tokens]
        logits_at_once(model, ids, (len(ids),), watching, setting.block_tokens)
    return watching
