"""The main job, end to end, on this machine: plan, run, measure, refit, plan better."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from api.client.bodies import DeploymentRequest, DeploymentView
from api.client.planner_client import PlannerClient
from api.demo.children import Children, DemoError, free_port
from profiles.cost.work import INDEX, head_work
from profiles.fetched import cache_folder
from profiles.model import ModelProfile
from solver.plans import Plan
from solver.request import DeviceGroup, Method, PlanRequest

METHODS: tuple[Method, ...] = ("contiguous", "greedy", "cp_sat")
DEPLOYMENT = "demo"
MOST_LAYERS, MEASURING_S, CORE_FLOPS = 4, 90.0, 6e10
"""Without --layers: as many as a core of about 60 GFLOP/s, shares timed one after another, does in
a minute and a half, at most four."""
START_S, PLAN_S, MADE_S, MEASURE_S, DECIDE_S = 90.0, 5.0, 110.0, 240.0, 30.0


@dataclass(frozen=True)
class DemoOptions:
    """What the demo runs; `layers` of the model are run (as many as fit), all are planned.

    With `model` (folder or hub name) and `prompts` the executors compute that model's activations.
    `predicted` is what the long-context table is made for.
    """

    profile: ModelProfile
    predicted: ModelProfile
    devices: int = 4
    nodes: int = 2
    context_tokens: int = 4096
    layers: int | None = None
    rounds: int = 4
    model: str | None = None
    prompts: Path | None = None


@dataclass(frozen=True)
class GenerationFigures:
    """One generation: what was predicted for the layers run, and what was measured."""

    method: str
    generation: int
    predicted_s: float
    measured_s: float
    predicted_bubble: float
    measured_bubble: float
    prediction_error: float


@dataclass(frozen=True)
class DemoResult:
    """All generations in order, the error on the last before refitting and the first after."""

    outcomes: list[GenerationFigures]
    error_before: float
    error_after: float
    decision: str
    device_type: str
    layers_run: list[int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run_demo(options: DemoOptions, say: Console) -> DemoResult:
    """Start planner and executors, and go once round the loop."""
    with tempfile.TemporaryDirectory(prefix="hplb-demo-") as name:
        folder = Path(name)
        with Children(folder, _settings(options)) as children:
            planner = PlannerClient(_start_planner(children, folder))
            say.print(f"[bold]1[/] planner at {planner.url}, SQLite in {folder}")
            children.until("planner", planner.ready, START_S)
            types = _start_executors(children, folder, planner, options)
            say.print(
                f"[bold]2[/] {options.nodes} executor processes play {len(types)} devices "
                f"({types[0]}), each share of a layer timed alone"
            )
            return _Round(options, planner, children, types, say).go()


def _settings(options: DemoOptions) -> dict[str, str]:
    """Fetched models lie where this process finds them."""
    return {"HPLB_REFINE_MIN_ROUNDS": str(options.rounds), "HPLB_CACHE": str(cache_folder())}


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
        if options.model is not None and options.prompts is not None:
            # The executors run in another folder.
            folder_or_name = Path(options.model)
            model = str(folder_or_name.resolve()) if folder_or_name.is_dir() else options.model
            arguments += ["--model", model, "--prompts", str(options.prompts.resolve())]
        children.start(node, "executor", *arguments, "--state-dir", str(folder / node))

    def registered() -> list[str] | None:
        devices = {node.node_id: node.devices for node in planner.nodes()}
        if not set(names) <= set(devices):
            return None
        return [device for name in names for device in devices[name]]

    return children.until("executors", registered, START_S)


def _node_names(options: DemoOptions) -> list[str]:
    return [f"demo-{index}" for index in range(options.nodes)]


@dataclass(frozen=True)
class _Round:
    """Once round the loop on a planner and executors that are up."""

    options: DemoOptions
    planner: PlannerClient
    children: Children
    types: list[str]
    say: Console

    def go(self) -> DemoResult:
        """Deploy every method's plan, measure it, then one planned with refitted rates."""
        options, profile = self.options, self.options.profile
        plans = {method: self._plan(method) for method in METHODS}
        layers = _layers_to_run(options, plans[METHODS[0]])
        label = " (synthetic)" if profile.synthetic else ""
        self.say.print(
            f"[bold]3[/] planned {', '.join(METHODS)}; no seconds were measured here so far"
        )
        self.say.print(
            f"[bold]4[/] {profile.name}{label}: layers {', '.join(map(str, layers))} of "
            f"{profile.architecture.layers} run at {options.context_tokens:,} tokens, "
            f"{options.rounds} rounds each"
        )
        generations = []
        for method in METHODS:
            view = self._deploy(plans[method], layers, refine=method == METHODS[-1])
            generations.append(self._tell(method, view))
        before = generations[-1]

        self.say.print("[bold]5[/] the cost model is refitted on what was measured; planning again")
        decision, view = self._refine(before.generation, layers)
        generations.append(self._tell("refined", view))
        return DemoResult(
            outcomes=generations,
            error_before=before.prediction_error,
            error_after=generations[-1].prediction_error,
            decision=decision,
            device_type=self.types[0],
            layers_run=layers,
        )

    def _plan(self, method: Method, *, fresh: bool = False) -> Plan:
        request = PlanRequest(
            profile=self.options.profile,
            devices=[DeviceGroup(type=name) for name in self.types],
            context_tokens=self.options.context_tokens,
            time_limit_s=PLAN_S,
            method=method,
            fresh=fresh,
        )
        return self.planner.plan(request, MADE_S)

    def _deploy(self, plan: Plan, layers: list[int], *, refine: bool) -> DeploymentView:
        """Make a plan live and wait for its rounds."""
        wanted = DeploymentRequest(
            plan_id=plan.id,
            nodes=_node_names(self.options),
            layers=layers,
            rounds=self.options.rounds,
            refine=refine,
        )
        return self._wait_for_rounds(self.planner.put_deployment(DEPLOYMENT, wanted).generation)

    def _wait_for_rounds(self, generation: int) -> DeploymentView:
        with self.say.status("") as status:

            def measured() -> DeploymentView | None:
                # By number: the refine loop may have moved on to the next one meanwhile.
                view = self.planner.deployment(DEPLOYMENT, generation)
                done, rounds = view.measured.rounds if view.measured else 0, self.options.rounds
                status.update(f"generation {generation}: {done} of {rounds} rounds measured")
                if done >= rounds:
                    return view
                for node in self.planner.nodes():
                    if node.error:
                        raise DemoError(f"{node.node_id}: {node.error}")
                return None

            return self.children.until(f"generation {generation}", measured, MEASURE_S)

    def _refine(self, generation: int, layers: list[int]) -> tuple[str, DeploymentView]:
        """The planner's own decision, and the view of a generation planned with refitted rates.

        Where the planner holds (hysteresis), the demo makes the new plan live itself: the error
        after refitting is judged on a generation that no rate was fitted on.
        """

        def decided() -> DeploymentView | None:
            now = self.planner.deployment(DEPLOYMENT)
            return now if now.decision else None

        now = self.children.until("the planner's decision", decided, DECIDE_S)
        decision = str(now.decision)
        self.say.print(f"  planner: {decision}", highlight=False)
        if now.generation != generation:
            return decision, self._wait_for_rounds(now.generation)
        self.say.print("  deployed all the same, to judge the refitted rates on a new generation")
        return decision, self._deploy(self._plan("cp_sat", fresh=True), layers, refine=False)

    def _tell(self, method: str, view: DeploymentView) -> GenerationFigures:
        """What a generation's rounds say, printed."""
        assert view.measured is not None
        assert view.prediction_error is not None
        figures = GenerationFigures(
            method=method,
            generation=view.generation,
            predicted_s=view.predicted.makespan_s,
            measured_s=view.measured.makespan_s,
            predicted_bubble=view.predicted.bubble_ratio,
            measured_bubble=view.measured.bubble_ratio,
            prediction_error=view.prediction_error,
        )
        self.say.print(
            f"  generation {figures.generation} {method}: measured "
            f"{1e3 * figures.measured_s:.0f} ms, bubble {100 * figures.measured_bubble:.1f} %",
            highlight=False,
        )
        return figures


def _layers_to_run(options: DemoOptions, plan: Plan) -> list[int]:
    """Layers spread over the model: as many as asked for, or as the time allows."""
    shape = options.profile.architecture
    work = head_work(
        np.array(plan.budgets), shape, plan.workload.workload, options.profile.selection
    )
    kinds = ("dense_tile_flops", "gathered_tile_flops", "sampled_flops")
    flops = sum(work[..., INDEX[kind]].sum() for kind in kinds)
    generations = len(METHODS) + 1
    layer_s = float(flops) / shape.layers / CORE_FLOPS * options.rounds * generations
    fitting = max(1, min(MOST_LAYERS, int(MEASURING_S / layer_s)))
    count = min(options.layers or fitting, shape.layers)
    return [round((i + 0.5) * shape.layers / count - 0.5) for i in range(count)]
