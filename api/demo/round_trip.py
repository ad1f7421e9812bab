"""The main job, end to end, on this machine: plan, run, measure, refit, plan better."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from api.client.bodies import DeploymentRequest, DeploymentView
from api.client.planner_client import PlannerClient
from api.demo.children import Children, DemoError, free_port
from api.demo.fitting import Effort, layers_to_run, usual_context
from api.demo.generations import DENSE, DIVIDED, REFITTED, SPARSE, Generation, request
from profiles.cli.progress import EVERY_S, shown, timed
from profiles.cost.rates import Rates
from profiles.fetched import cache_folder
from profiles.model import ModelProfile
from profiles.tasks.haystack import sentences
from solver.plans import Plan

DEPLOYMENT = "demo"
FIRST_ROUNDS, ROUNDS = 3, 9
"""Of every generation: those that the rates are refitted to, and those beside the refitted plan, of
which a machine may spoil one or two."""
START_S, MADE_S, MEASURE_S, REFIT_S, LOSS_S = 90.0, 110.0, 240.0, 30.0, 600.0


@dataclass(frozen=True)
class DemoOptions:
    """What the demo runs; `layers` of the model are run (as many as fit), all are planned.

    With `model` (folder or name) the executors compute its activations, of `data` or the
    standard library's held-out docstrings, on which loss is measured. `context_tokens`: the longest
    that was measured and fits, unless given. `rounds`: of every generation, after refitting.
    """

    profile: ModelProfile
    devices: int = 4
    nodes: int = 2
    context_tokens: int | None = None
    layers: int | None = None
    rounds: int = ROUNDS
    model: str | None = None
    data: Path | None = None

    @property
    def effort(self) -> Effort:
        return Effort(
            dense_rounds=FIRST_ROUNDS + self.rounds,
            sparse_rounds=FIRST_ROUNDS * len(SPARSE) + self.rounds * (len(SPARSE) + 1),
            forwards=0 if self.model is None else self.nodes + 2,
        )

    @property
    def context(self) -> int:
        return self.context_tokens or usual_context(self.profile, self.effort, self.layers)


@dataclass(frozen=True)
class Loss:
    """Nats a token over dense attention on held-out text, and whether the profile is of these very
    weights."""

    over_dense: float
    own_weights: bool


@dataclass(frozen=True, eq=False)
class DemoResult:
    """Every generation, measured after refitting, the refitted one last.

    `before`: the divided generation's load error in the rounds that rates were refitted to.
    `rates`: by device type, which the last was planned with; `rates_error`: their relative error,
    root mean square, in the rounds of sparse plans that they were refitted to. `loss` where a model
    is run.
    """

    generations: list[Generation]
    before: float
    rates: Mapping[str, Rates]
    rates_error: float
    loss: Loss | None


def run_demo(options: DemoOptions, say: Console) -> DemoResult:
    """Start planner and executors, and go once round the loop."""
    with tempfile.TemporaryDirectory(prefix="hplb-demo-") as name:
        folder = Path(name)
        # Fetched models lie where this process finds them.
        with Children(folder, {"HPLB_CACHE": str(cache_folder())}) as children:
            planner = PlannerClient(_start_planner(children, folder))
            say.print(f"[bold]1[/] planner at {planner.url}, SQLite in {folder}")
            children.until("planner", planner.ready, START_S)
            types = _start_executors(children, folder, planner, options)
            say.print(
                f"[bold]2[/] {options.nodes} executor processes play {len(types)} devices "
                f"({types[0]}), each share of a layer timed alone"
            )
            return _Round(options, planner, children, folder, types, say).go()


def _start_planner(children: Children, folder: Path) -> str:
    port = free_port()
    database = f"sqlite:///{folder / 'hplb.db'}"
    children.start("planner", "serve", "--port", str(port), "--database-url", database)
    return f"http://127.0.0.1:{port}"


def _start_executors(
    children: Children, folder: Path, planner: PlannerClient, options: DemoOptions
) -> list[str]:
    """The types of the registered devices, in the nodes' order."""
    names = _node_names(options)
    for index, node in enumerate(names):
        count = len(range(index, options.devices, options.nodes))
        arguments = ["--server", planner.url, "--devices", str(count), "--node-id", node]
        if options.model is not None:
            read = _read(options, folder)
            arguments += ["--model", _elsewhere(options.model), "--data", str(read)]
        children.start(node, "executor", *arguments, "--state-dir", str(folder / node))

    def registered() -> list[str] | None:
        devices = {node.node_id: node.devices for node in planner.nodes()}
        if not set(names) <= set(devices):
            return None
        return [device for name in names for device in devices[name]]

    return children.until("executors", registered, START_S)


def _elsewhere(model: str) -> str:
    """The model as a process in another folder finds it."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def _read(options: DemoOptions, folder: Path) -> Path:
    """What the executors read: one text, unless told, so that a model runs but once over it."""
    if options.data is not None:
        return options.data.resolve()
    text = folder / "docstrings.txt"
    text.write_text(" ".join(sentences("held_out")))
    return text


def _node_names(options: DemoOptions) -> list[str]:
    return [f"demo-{index}" for index in range(options.nodes)]


@dataclass(frozen=True)
class _Round:
    """Once round the loop on a planner and executors that are up."""

    options: DemoOptions
    planner: PlannerClient
    children: Children
    folder: Path
    types: list[str]
    say: Console

    def go(self) -> DemoResult:
        """Every method's plan measured, the rates refitted, and all measured again beside one more.

        Generations take turns, a round each, so that a machine that drifts drifts under all alike.
        """
        options, profile = self.options, self.options.profile
        generations, loss = self._planned_and_scored()
        label, layers = " (synthetic)" if profile.synthetic else "", generations[0].layers
        self.say.print(
            f"[bold]4[/] {profile.name}{label}: layers {', '.join(map(str, layers))} of "
            f"{profile.architecture.layers} run at {options.context:,} tokens, generations in turn"
        )
        self._measure(generations, FIRST_ROUNDS)
        before = next(each.error for each in generations if each.name == DIVIDED)
        self.say.print("[bold]5[/] the cost model is refitted on what was measured; planning again")
        refitted, rates = self.children.until("refitted rates", self._refitted, REFIT_S)
        left = np.concatenate([g.residuals(rates) for g in generations if g.name != DENSE])
        measured = [*(replace(each, loads_s=[], numbers=[]) for each in generations), refitted]
        _check_budgets(measured)
        self._measure(measured, options.rounds)
        error = float(np.sqrt(np.mean(left**2)))
        return DemoResult(measured, before, rates, error, loss)

    def _planned_and_scored(self) -> tuple[list[Generation], Loss | None]:
        """Dense and sparse plans by the rates there are, and what the sparse budgets cost."""
        sparse = [self._planned(SPARSE[0])]
        if self.options.model is not None:
            self._score(sparse[0].plan, self.options.model)
        sparse += [self._planned(name) for name in SPARSE[1:]]
        dense = self._planned(DENSE)
        _check_budgets(sparse)
        # A context so short that all heads are dense has one kind of budgets.
        different = dense.plan.budgets != sparse[0].plan.budgets
        generations = [dense, *sparse] if different else sparse
        names = ", ".join(each.name for each in generations)
        self.say.print(f"[bold]3[/] planned: {names}; no seconds were measured here so far")
        loss = self._loss() if self.options.model is not None else None
        return generations, loss

    def _planned(self, name: str) -> Generation:
        options = self.options
        asked = request(options.profile, self.types, options.context, name)
        plan = self.planner.plan(asked, MADE_S)
        layers = layers_to_run(options.profile, options.effort, options.context, options.layers)
        return Generation(name, asked, plan, layers)

    def _refitted(self) -> tuple[Generation, dict[str, Rates]] | None:
        """A plan by rates that were measured, with these."""
        rates = {
            each.device: Rates.model_validate(each.model_dump(exclude={"version"}))
            for each in self.planner.cost_models()
            if each.device in self.types and each.phase == "prefill"
        }
        if any(each.fitted_to_tokens is None for each in rates.values()):
            return None
        made = self._planned(REFITTED)
        # A refit may have come in between.
        current = {device: each.version for device, each in rates.items()}
        return (made, rates) if made.plan.cost_model == current else None

    def _score(self, plan: Plan, model: str) -> None:
        """Beside the planner, before anything is timed."""
        path = self.folder / "plan.json"
        plan.save(path)
        asked = ["--plan", str(path), "--model", _elsewhere(model), "--json"]
        self.children.start("loss", "loss", *asked)

    def _loss(self) -> Loss:
        with shown("scoring") as show:
            show(0, 1, "loss over dense attention on held-out text")
            found = json.loads(self.children.result("loss", LOSS_S))
        measured = self.options.profile.measurement
        own = measured is not None and measured.weights_sha256 == found["weights_sha256"]
        if not own:
            self.say.print(
                f"  [yellow]note[/]: {self.options.profile.name} was not measured on the weights "
                f"that are run ({found['weights_sha256'][:12]})",
                highlight=False,
            )
        return Loss(found["over_dense"], own)

    def _measure(self, generations: Sequence[Generation], rounds: int) -> None:
        """A round of each in turn, `rounds` times."""
        with shown("measuring", quiet_s=EVERY_S) as show:
            told, whole = timed(show), rounds * len(generations)
            for number in range(whole):
                each = generations[number % len(generations)]
                told(number, whole, f"rounds measured, {each.name}")
                each.take(self._deployed(each))

    def _deployed(self, generation: Generation) -> DeploymentView:
        """Make a plan live for a round, and wait for that."""
        wanted = DeploymentRequest(
            plan_id=generation.plan.id,
            nodes=_node_names(self.options),
            layers=generation.layers,
            rounds=1,
            refine=False,
        )
        number = self.planner.put_deployment(DEPLOYMENT, wanted).generation

        def measured() -> DeploymentView | None:
            view = self.planner.deployment(DEPLOYMENT)
            if view.measured is not None:
                return view
            for node in self.planner.nodes():
                if node.error:
                    raise DemoError(f"{node.node_id}: {node.error}")
            return None

        return self.children.until(f"generation {number}", measured, MEASURE_S)


def _check_budgets(generations: Sequence[Generation]) -> None:
    """Raise DemoError where gains would not be the placement's alone."""
    sparse = [each for each in generations if each.name != DENSE]
    for each in sparse:
        if each.plan.budgets != sparse[0].plan.budgets:
            raise DemoError(f"{each.name}: its budgets are not those of {sparse[0].name}")
