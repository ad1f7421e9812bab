"""What a plan's budgets cost a model: its loss on held-out text, beside dense attention's."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from executor.evaluation.loaded import check_positions
from executor.evaluation.losses import losses
from executor.evaluation.texts import scored_tokens, windows
from executor.inference.budget_policy import BudgetPolicy
from profiles.measuring.loading import Loaded
from profiles.time_left import Show
from solver.plans import Plan


@dataclass(frozen=True)
class PlanLoss:
    """Nats a token, means over `windows` of the plan's context, of which the ends are scored.

    `density` is the share of dense attention's (query, key) pairs that was computed.
    """

    loss: float
    dense_loss: float
    density: float
    context_tokens: int
    windows: int
    scored_tokens: int
    weights_sha256: str

    @property
    def over_dense(self) -> float:
        return self.loss - self.dense_loss

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "over_dense": self.over_dense}


def plan_loss(loaded: Loaded, plan: Plan, text: Path | None, most: int, progress: Show) -> PlanLoss:
    """Score up to `most` windows of the text, the held-out docstrings where it is None.

    Placement changes no output, so that budgets, selection and sizes are all that counts. Raises
    EvaluationError for a context the model has no positions for and a text shorter than it,
    AttentionError for a model that the plan was not made for.
    """
    context = plan.workload.context_tokens
    check_positions(loaded, "plan", context)
    chosen = windows(text, loaded.tokenizer, context, most)
    policies = BudgetPolicy.of_plan(plan), None
    nats, shares = losses(loaded, chosen, policies, plan.workload.block_tokens, progress)
    loss, dense_loss = nats.mean(axis=0).tolist()
    return PlanLoss(
        loss=loss,
        dense_loss=dense_loss,
        density=float(shares[:, 0].mean()),
        context_tokens=context,
        windows=len(chosen),
        scored_tokens=scored_tokens(context),
        weights_sha256=loaded.weights_sha256,
    )
