"""The main job, end to end, on this machine: plan, run, measure, refit, plan better."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from api.client.planner_api import Json, PlannerApi, PlannerError
from api.demo.children import Children, free_port
from profiles.cost.work import INDEX, Workload, head_work
from profiles.model import ModelProfile

METHODS = ("contiguous", "greedy", "cp_sat")
DEPLOYMENT = "demo"
MOST_LAYERS, MEASURING_S, CORE_FLOPS = 4, 90.0, 6e10
"""Without --layers: as many as a core of about 60 GFLOP/s, shares timed one after another, does in
a minute and a half, at most four."""
START_S, PLAN_S, MEASURE_S, DECIDE_S = 90.0, 5.0, 240.0, 30.0


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
class Outcome:
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

    outcomes: list[Outcome]
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
        with Children(folder, {"HPLB_REFINE_MIN_ROUNDS": str(options.rounds)}) as children:
            url = _start_planner(children, folder)
            planner = PlannerApi(url, children.check)
            say.print(f"[bold]1[/] planner at {url}, SQLite in {folder}")
            planner.until("planner", lambda: planner.get("/readyz"), START_S)
            types = _start_executors(children, folder, planner, url, options)
            say.print(
                f"[bold]2[/] {options.nodes} executor processes play {len(types)} devices "
                f"({types[0]}), each share of a layer timed alone"
            )
            return _go_round(planner, types, options, say)


def _start_planner(children: Children, folder: Path) -> str:
    port = free_port()
    database = f"sqlite:///{folder / 'hplb.db'}"
    children.start("planner", "serve", "--port", str(port), "--database-url", database)
    return f"http://127.0.0.1:{port}"


def _start_executors(
    children: Children, folder: Path, planner: PlannerApi, url: str, options: DemoOptions
) -> list[str]:
    """The types of the registered devices, in the nodes' order."""
    names = _node_names(options)
    for index, node in enumerate(names):
        count = len(range(index, options.devices, options.nodes))
        arguments = ["--server", url, "--devices", str(count), "--node-id", node]
        if options.model is not None and options.prompts is not None:
            arguments += ["--model", options.model, "--prompts", str(options.prompts)]
        children.start(node, "executor", *arguments, "--state-dir", str(folder / node))

    def registered() -> Json | None:
        nodes = {node["node_id"]: node for node in planner.get("/nodes")["nodes"]}
        return nodes if set(names) <= set(nodes) else None

    nodes = planner.until("executors", registered, START_S)
    return [device for name in names for device in nodes[name]["devices"]]


def _node_names(options: DemoOptions) -> list[str]:
    return [f"demo-{index}" for index in range(options.nodes)]


def _go_round(
    planner: PlannerApi, types: list[str], options: DemoOptions, say: Console
) -> DemoResult:
    profile = options.profile
    request = {
        "profile": profile.model_dump(mode="json"),
        "devices": [{"type": name} for name in types],
        "context_tokens": options.context_tokens,
        "time_limit_s": PLAN_S,
    }
    plans = {m: planner.post("/plan", {**request, "method": m}) for m in METHODS}
    layers = _layers_to_run(options, plans[METHODS[0]])
    label = " (synthetic)" if profile.synthetic else ""
    say.print(f"[bold]3[/] planned {', '.join(METHODS)}; no seconds were measured here so far")
    say.print(
        f"[bold]4[/] {profile.name}{label}: layers {', '.join(map(str, layers))} of "
        f"{profile.architecture.layers} run at {options.context_tokens:,} tokens, "
        f"{options.rounds} rounds each"
    )

    deploy = {"nodes": _node_names(options), "layers": layers, "rounds": options.rounds}
    outcomes, view = [], {}
    for method in METHODS:
        last = method == METHODS[-1]
        body = {**deploy, "plan_id": plans[method]["id"], "refine": last}
        view = _measure(planner, body, options.rounds, say)
        outcomes.append(_outcome(method, view))
        say.print(f"  {_line(outcomes[-1])}", highlight=False)
    before = outcomes[-1].prediction_error

    say.print("[bold]5[/] the cost model is refitted on what was measured; planning again")
    decision, view = _refined(planner, view, request, deploy, options.rounds, say)
    outcomes.append(_outcome("refined", view))
    say.print(f"  {_line(outcomes[-1])}", highlight=False)
    return DemoResult(
        outcomes=outcomes,
        error_before=before,
        error_after=outcomes[-1].prediction_error,
        decision=decision,
        device_type=types[0],
        layers_run=layers,
    )


def _layers_to_run(options: DemoOptions, plan: Json) -> list[int]:
    """Layers spread over the model: as many as asked for, or as the time allows."""
    shape = options.profile.architecture
    sizes = {name: plan["workload"].get(name, 0) for name in ("block_tokens", "piece_tokens")}
    step = Workload(options.context_tokens, **sizes)
    work = head_work(np.array(plan["budgets"]), shape, step, options.profile.selection)
    flops = work[..., INDEX["tile_flops"]].sum()
    generations = len(METHODS) + 1
    layer_s = float(flops) / shape.layers / CORE_FLOPS * options.rounds * generations
    fitting = max(1, min(MOST_LAYERS, int(MEASURING_S / layer_s)))
    count = min(options.layers or fitting, shape.layers)
    return [round((i + 0.5) * shape.layers / count - 0.5) for i in range(count)]


def _measure(planner: PlannerApi, body: Json, rounds: int, say: Console) -> Json:
    """Make a plan live and wait for its rounds."""
    generation = planner.put(f"/deployments/{DEPLOYMENT}", body)["generation"]
    return _wait_for_rounds(planner, generation, rounds, say)


def _wait_for_rounds(planner: PlannerApi, generation: int, rounds: int, say: Console) -> Json:
    with say.status("") as status:

        def measured() -> Json | None:
            # The generation by number: the refine loop may have moved on to the next meanwhile.
            view = planner.get(f"/deployments/{DEPLOYMENT}?generation={generation}")
            done = view["measured"]["rounds"] if view["measured"] else 0
            status.update(f"generation {generation}: {done} of {rounds} rounds measured")
            if done >= rounds:
                return view
            for node in planner.get("/nodes")["nodes"]:
                if node["error"]:
                    raise PlannerError(f"{node['node_id']}: {node['error']}")
            return None

        return planner.until(f"generation {generation}", measured, MEASURE_S)


def _refined(
    planner: PlannerApi, view: Json, request: Json, deploy: Json, rounds: int, say: Console
) -> tuple[str, Json]:
    """The planner's own decision, and the view of a generation planned with refitted rates.

    Where the planner holds (hysteresis), the demo makes the new plan live itself: the error after
    refitting is judged on a generation that no rate was fitted on.
    """
    generation = view["generation"]

    def decided() -> Json | None:
        now = planner.get(f"/deployments/{DEPLOYMENT}")
        return now if now["decision"] else None

    now = planner.until("the planner's decision", decided, DECIDE_S)
    decision = str(now["decision"])
    say.print(f"  planner: {decision}", highlight=False)
    if now["generation"] != generation:
        return decision, _wait_for_rounds(planner, now["generation"], rounds, say)
    say.print("  deployed all the same, to judge the refitted rates on a new generation")
    plan = planner.post("/plan", {**request, "method": "cp_sat", "fresh": True})
    body = {**deploy, "plan_id": plan["id"], "refine": False}
    return decision, _measure(planner, body, rounds, say)


def _outcome(method: str, view: Json) -> Outcome:
    return Outcome(
        method=method,
        generation=view["generation"],
        predicted_s=view["predicted"]["makespan_s"],
        measured_s=view["measured"]["makespan_s"],
        predicted_bubble=view["predicted"]["bubble_ratio"],
        measured_bubble=view["measured"]["bubble_ratio"],
        prediction_error=view["prediction_error"],
    )


def _line(outcome: Outcome) -> str:
    return (
        f"generation {outcome.generation} {outcome.method}: measured "
        f"{1e3 * outcome.measured_s:.0f} ms, bubble {100 * outcome.measured_bubble:.1f} %"
    )
