"""What is planned, and what became of it: a plan, and the rounds it was measured in."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from api.client.bodies import DeploymentView
from profiles.cost.rates import Rates
from profiles.cost.work import Workload, budget_pieces
from profiles.heads import CurvesForm
from profiles.model import ModelProfile
from profiles.sizes import causal_pieces
from solver.budgets.options import BudgetOptions
from solver.planning.figures import bubble_ratio
from solver.planning.predict import predicted_loads
from solver.plans import Plan
from solver.request import DeviceGroup, PlacementOptions, PlanRequest

Floats = NDArray[np.float64]
DENSITY = 0.3
"""Share of dense attention's (query, key) pairs that sparse budgets leave, at most."""
PLAN_S = 5.0
DENSE, CONTIGUOUS, EXACT, DIVIDED, REFITTED = "dense", "contiguous", "exact", "divided", "refitted"
SPARSE = (CONTIGUOUS, "greedy", EXACT, DIVIDED)
"""One method after another, from the order of the file to heads that several devices share."""


@dataclass(frozen=True, eq=False)
class Generation:
    """A plan and the rounds that the layers run were measured in.

    loads_s [layers run, devices] of every round; `numbers` are the generations that the planner
    has these measurements under, one a round.
    """

    name: str
    asked: PlanRequest
    plan: Plan
    layers: list[int]
    loads_s: list[Floats] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def take(self, view: DeploymentView) -> None:
        """One more round, as the planner has stored it."""
        assert view.measured is not None
        measured = np.array(view.measured.device_loads_s, dtype=np.float64)[self.layers]
        self.loads_s.append(np.where(self.planned_s > 0, np.nan_to_num(measured), 0.0))
        self.numbers.append(view.generation)

    @property
    def density(self) -> float:
        """The share of dense attention's (query, key) pairs, over the whole model."""
        step = self.plan.workload.workload
        pieces = budget_pieces(np.array(self.plan.budgets, dtype=np.float64), step)
        every = np.full_like(pieces, step.context_pieces)
        counts = [causal_pieces(n, step.context_blocks, step.block_pieces) for n in (pieces, every)]
        return float(counts[0].sum() / counts[1].sum())

    @property
    def planned_s(self) -> Floats:
        """Predicted loads [layers run, devices] by the rates that the plan was made with."""
        return np.array([self.plan.layers[layer].loads_s for layer in self.layers])

    def again_s(self, rates: Mapping[str, Rates]) -> Floats:
        """The same by other rates."""
        return predicted_loads(self.plan, rates)[self.layers]

    def residuals(self, rates: Mapping[str, Rates]) -> Floats:
        """(measured - predicted by `rates`) / predicted, of loaded devices of layers run."""
        again_s = self.again_s(rates)
        loaded = again_s > 0
        return np.asarray(self.measured_s[loaded] / again_s[loaded] - 1)

    @property
    def measured_s(self) -> Floats:
        """Medians over the rounds, [layers run, devices]."""
        return np.asarray(np.median(self.loads_s, axis=0))

    @property
    def rounds_s(self) -> Floats:
        """The makespan of every round."""
        return np.array([makespan(loads) for loads in self.loads_s])

    @property
    def error(self) -> float:
        """Mean over layers and loaded devices of |predicted - measured| / measured."""
        planned, measured = self.planned_s, self.measured_s
        loaded = planned > 0
        return float(np.mean(np.abs(planned - measured)[loaded] / measured[loaded]))


def makespan(loads_s: Floats) -> float:
    """A barrier after every layer."""
    return float(loads_s.max(axis=1).sum())


def expected_makespan(loads_s: Floats, error: float) -> float:
    """The same where every load differs from its prediction by a normal error, `error` (a standard
    deviation) of itself.

    The mean of the largest of several is above the largest of their means, and most where loads are
    nearly equal: what a search balances by rates that are a little wrong waits for the unluckiest
    device. Of non-negative loads, E[max] is the integral of 1 - P(all at most x).
    """
    from scipy.special import ndtr  # slow to import

    upper = float(loads_s.max()) * (1 + 8 * error)
    at_most = np.linspace(0.0, upper, 4096)[:, None, None]
    spread_s = np.maximum(error * loads_s, 1e-9 * upper)
    every = ndtr((at_most - loads_s) / spread_s).prod(axis=2)
    return float(np.trapezoid(1 - every, at_most[:, 0, 0], axis=0).sum())


def bubble(loads_s: Floats) -> float:
    return bubble_ratio(loads_s, loads_s.max(axis=1))


def sparse_budgets(profile: ModelProfile, context: int) -> BudgetOptions:
    """Budgets that move the heads' output least at DENSITY; where no errors were measured, the
    profile's own. As chosen, so that rates that are refitted leave them alone."""
    heads = profile.heads
    if not isinstance(heads, CurvesForm) or heads.output_error is None:
        return BudgetOptions(as_chosen=True)
    block, piece = profile.sizes()
    workload = Workload(context, block_tokens=block, piece_tokens=piece)
    pieces = np.arange(workload.least_pieces, workload.context_pieces + 1)
    pairs = causal_pieces(pieces, workload.context_blocks, workload.block_pieces)
    fitting = pieces[pairs <= DENSITY * pairs[-1]]
    tokens = int(fitting[-1] if len(fitting) else pieces[0]) * piece
    return BudgetOptions(policy="least_error", scope="model", tokens=tokens, as_chosen=True)


def request(profile: ModelProfile, types: list[str], context: int, name: str) -> PlanRequest:
    """What the planner is asked for a generation of that name."""
    fields: dict[str, object] = {
        "profile": profile,
        "devices": [DeviceGroup(type=device) for device in types],
        "context_tokens": context,
        "time_limit_s": PLAN_S,
        "budget": sparse_budgets(profile, context),
    }
    if name == DENSE:
        budget = BudgetOptions(policy="uniform", tokens=context)
        fields |= {"method": "contiguous", "budget": budget}
    elif name in (DIVIDED, REFITTED):
        fields |= {"method": "auto", "placement": PlacementOptions(divisible=True)}
    else:
        fields["method"] = "cp_sat" if name == EXACT else name
    return PlanRequest.checked(**fields)
