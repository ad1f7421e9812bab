"""What a plan's budgets cost a model: its loss on held-out text, beside dense attention's."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from executor.errors import EvaluationError
from executor.evaluation.loaded import Loaded
from executor.evaluation.scoring import surprise
from executor.evaluation.texts import scored_tokens, windows
from executor.inference.budget_policy import BudgetPolicy
from solver.plans import Plan

Progress = Callable[[int, int, str], None]


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


def plan_loss(
    loaded: Loaded, plan: Plan, text: Path | None, most: int, progress: Progress
) -> PlanLoss:
    """Score up to `most` windows of the text, the held-out docstrings where it is None.

    Placement changes no output, so that budgets, selection and sizes are all that counts. Raises
    EvaluationError for a context the model has no positions for and a text shorter than it,
    AttentionError for a model that the plan was not made for.
    """
    context, block = plan.workload.context_tokens, plan.workload.block_tokens
    if loaded.most_tokens is not None and context > loaded.most_tokens:
        raise EvaluationError(
            f"plan: is for {context} tokens, the model has positions for {loaded.most_tokens}"
        )
    chosen, policy = windows(text, loaded.tokenizer, context, most), BudgetPolicy.of_plan(plan)
    sparse, dense, computed = [], [], []
    for number, ids in enumerate(chosen):
        progress(2 * number, 2 * len(chosen), "the plan's budgets")
        nats, of_window = surprise(loaded.model, ids, scored_tokens(context), policy, block)
        sparse.append(nats)
        computed.append(of_window.tiles / of_window.dense_tiles)
        progress(2 * number + 1, 2 * len(chosen), "dense attention")
        dense.append(surprise(loaded.model, ids, scored_tokens(context), None, block)[0])
    progress(2 * len(chosen), 2 * len(chosen), "scored")
    return PlanLoss(
        loss=mean(sparse),
        dense_loss=mean(dense),
        density=mean(computed),
        context_tokens=context,
        windows=len(chosen),
        scored_tokens=scored_tokens(context),
        weights_sha256=loaded.weights_sha256,
    )
