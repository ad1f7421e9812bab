"""What a rank serves and has computed, in Prometheus beside vLLM's own metrics.

vLLM exports from its first process, and attention runs in others. Each rank keeps its numbers in
a file, written at every step without a call, and the first process reads all ranks' when it is
asked. With several API servers vLLM itself collects from all processes (PROMETHEUS_MULTIPROC_DIR),
and a rank's metrics are ordinary ones.
"""

import atexit
import json
import mmap
import os
import shutil
import struct
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from prometheus_client import REGISTRY, Counter, Gauge, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from vllm.logger import init_logger

from executor.weights.execution_map import ExecutionMap
from profiles.cost.work import Phase
from profiles.files import write_atomically

FOLDER = "HPLB_VLLM_METRICS"
"""The environment variable by which vLLM's processes know where the ranks' files are."""
NUMBER = struct.Struct("=d")
LOG_SECONDS = 10.0
INFO = "hplb_plan_info", "The plan that a rank serves."
BUDGET = "hplb_budget_tokens", "Budgets of a rank's heads in a layer, by their shares, summed."
logger = init_logger("vllm.hplb")


@dataclass(frozen=True)
class Number:
    """One of a rank's numbers: a counter, or a gauge of what is so now; of a `phase` or of both."""

    name: str
    told: str
    gauge: bool = False
    phase: Phase | None = None


_BUSY = "hplb_attention_seconds", "Attention of the sampled steps; on a CPU the time of its thread."
_WALL = "hplb_attention_wall_seconds", "The same by the clock on the wall."
_ROWS = (
    "hplb_watched_rows",
    "Query rows by heads, in the one layer of a timed batch that is watched.",
)
_HELD = "hplb_held_rows", "The same, each as the share of its attention mass that its list held."
NUMBERS = {
    "steps": Number("hplb_steps", "Batches that a rank attended by its plan."),
    "tiles": Number(
        "hplb_tiles", "Tiles (query block x piece of keys; pieces, for a decode) computed."
    ),
    "dense": Number("hplb_dense_tiles", "Tiles of the same rows with every causal piece."),
    "sampled": Number("hplb_sampled_steps", "Batches whose attention was timed."),
    "prefill_busy": Number(*_BUSY, phase="prefill"),
    "decode_busy": Number(*_BUSY, phase="decode"),
    "prefill_wall": Number(*_WALL, phase="prefill"),
    "decode_wall": Number(*_WALL, phase="decode"),
    "prefill_rows": Number(*_ROWS, phase="prefill"),
    "decode_rows": Number(*_ROWS, phase="decode"),
    "prefill_held": Number(*_HELD, phase="prefill"),
    "decode_held": Number(*_HELD, phase="decode"),
    "since": Number(
        "hplb_plan_live_timestamp_seconds", "When the rank began to serve its plan.", gauge=True
    ),
    "switches": Number("hplb_plan_switches", "Plans that went live without a restart."),
    "stall": Number("hplb_plan_switch_seconds", "How long the steps waited that they did so at."),
    "loaded": Number("hplb_plan_loaded_bytes", "Of weights loaded for them."),
    "wanted": Number(
        "hplb_plan_wanted_timestamp_seconds",
        "Since when the planner wants another plan than the rank serves; 0 where it wants none.",
        gauge=True,
    ),
    "spooled": Number(
        "hplb_spooled_batches", "Measurements that wait for the planner.", gauge=True
    ),
    "dropped": Number(
        "hplb_dropped_steps",
        "Timed steps that no planner will hear of, 64 for a batch that a full spool dropped.",
    ),
    "overrun": Number(
        "hplb_overrun_steps",
        "Timed steps that were not counted: the rank's reporting thread was too far behind.",
    ),
}
"""Each is written by one thread alone."""


@dataclass(frozen=True)
class Served:
    """What changes with its plan alone of a rank: labels, and tokens of budget [layers]."""

    engine: str
    rank: str
    plan: str
    layout: str
    map: str
    budgets: list[float]

    @classmethod
    def of(cls, made: ExecutionMap, held: tuple[int, ...], engine: int, rank: int) -> "Served":
        """What a rank with the slots of `held` serves."""
        layout = made.layout
        budgets = [
            sum(
                made.budgets[number][head] * (rows[1] - rows[0])
                for rank in held
                for slot in layer[rank]
                if slot is not None
                for head, rows in zip(slot.heads, slot.rows, strict=True)
                if rows is not None
            )
            for number, layer in enumerate(layout.layers)
        ]
        return cls(str(engine), str(rank), made.plan, layout.id, made.hash, budgets)


def budgets_of(made: ExecutionMap, context_tokens: int) -> str:
    """A plan's budgets, as its log says them, of the longest context that there may be."""
    tokens = [budget for row in made.budgets for budget in row]
    mean = sum(tokens) / len(tokens)
    share = sum(min(budget, context_tokens) for budget in tokens) / len(tokens) / context_tokens
    return (
        f"budgets of {mean:.0f} tokens a head ({min(tokens)} to {max(tokens)}), "
        f"{100 * share:.1f} % of a context of {context_tokens}"
    )


class RankReport:
    """A rank's numbers, told as they change; of requests of up to `context_tokens`."""

    def __init__(
        self,
        made: ExecutionMap,
        held: tuple[int, ...],
        engine: int,
        rank: int,
        context_tokens: int,
    ) -> None:
        self._held, self._engine, self._rank = held, engine, rank
        self._context_tokens = context_tokens
        served = Served.of(made, held, engine, rank)
        self._numbers: _Numbers = (
            _Collected(served) if "PROMETHEUS_MULTIPROC_DIR" in os.environ else _InFile(served)
        )
        self._numbers.set("since", time.time())
        self._steps = self._tiles = self._dense = 0
        self._watched, self._watched_logged = (0, 0.0), (0, 0.0)
        self._wanted: str | None = None
        self._logged = time.monotonic()

    def add(self, tiles: int, dense_tiles: int) -> None:
        """A step that computed `tiles` where dense attention has so many."""
        for name, more in (("steps", 1), ("tiles", tiles), ("dense", dense_tiles)):
            self._numbers.add(name, more)
        self._steps, self._tiles = self._steps + 1, self._tiles + tiles
        self._dense += dense_tiles
        if time.monotonic() - self._logged >= LOG_SECONDS:
            share, watched = self._tiles / max(self._dense, 1), self._watched
            rows, held = (
                now - then for now, then in zip(watched, self._watched_logged, strict=True)
            )
            kept = f", which held {100 * held / rows:.1f} % of its mass" if rows else ""
            logger.info(
                "HPLB: %d steps computed %.1f %% of dense attention%s",
                self._steps,
                100 * share,
                kept,
            )
            self._watched_logged = watched
            self._steps = self._tiles = self._dense = 0
            self._logged = time.monotonic()

    def switched(self, made: ExecutionMap, stall_s: float) -> None:
        """Another plan is served from this step on, which waited so long for it."""
        self._numbers.serve(Served.of(made, self._held, self._engine, self._rank))
        self._numbers.add("switches", 1)
        self._numbers.add("stall", stall_s)
        self._numbers.set("since", time.time())
        logger.info(
            "HPLB: plan %s, map %s from now on: %s",
            made.plan[:12],
            made.hash[:12],
            budgets_of(made, self._context_tokens),
        )

    def sampled(self, seconds: dict[Phase, tuple[float, float]]) -> None:
        """A step was timed: busy and wall seconds of all layers, by phase."""
        self._numbers.add("sampled", 1)
        for phase, (busy_s, wall_s) in seconds.items():
            self._numbers.add(f"{phase}_busy", busy_s)
            self._numbers.add(f"{phase}_wall", wall_s)

    def watched(self, rows: dict[Phase, tuple[int, float]]) -> None:
        """Of a timed step's layer, by phase: query rows of all heads, and as many by the share of
        attention mass that their lists held."""
        for phase, (count, held) in rows.items():
            self._numbers.add(f"{phase}_rows", count)
            self._numbers.add(f"{phase}_held", held)
            self._watched = self._watched[0] + count, self._watched[1] + held

    def wants(self, plan: str, live: bool) -> None:
        """The planner wants a plan, again and again; whether it is the one that is served."""
        wanted = None if live else plan
        if wanted != self._wanted:
            self._wanted = wanted
            self._numbers.set("wanted", 0.0 if wanted is None else time.time())

    def loaded(self, weight_bytes: int) -> None:
        """Other weights were loaded, of so many bytes."""
        self._numbers.add("loaded", weight_bytes)

    def waiting(self, batches: int) -> None:
        """So many batches wait for the planner."""
        self._numbers.set("spooled", batches)

    def dropped(self, steps: int) -> None:
        """So many timed steps are lost."""
        self._numbers.add("dropped", steps)

    def overrun(self) -> None:
        """A timed step came when too many waited to be counted."""
        self._numbers.add("overrun", 1)


class _Numbers(Protocol):
    def add(self, name: str, more: float) -> None: ...

    def set(self, name: str, value: float) -> None: ...

    def serve(self, served: Served) -> None: ...


class _InFile:
    """Numbers in a file of the rank's own, which it maps into memory."""

    def __init__(self, served: Served) -> None:
        folder = Path(os.environ[FOLDER])
        folder.mkdir(mode=0o700, exist_ok=True)
        self._told = folder / f"{served.engine}-{served.rank}.json"
        size = NUMBER.size * len(NUMBERS)
        with self._told.with_suffix(".counts").open("w+b") as file:
            file.write(bytes(size))
            file.flush()
            self._shared = mmap.mmap(file.fileno(), size)
        self._at = {name: place * NUMBER.size for place, name in enumerate(NUMBERS)}
        self.serve(served)

    def add(self, name: str, more: float) -> None:
        (before,) = NUMBER.unpack_from(self._shared, self._at[name])
        self.set(name, before + more)

    def set(self, name: str, value: float) -> None:
        NUMBER.pack_into(self._shared, self._at[name], value)

    def serve(self, served: Served) -> None:
        write_atomically(self._told, json.dumps(asdict(served)))


class _Collected:
    """Ordinary metrics, which vLLM collects from all of its processes."""

    def __init__(self, served: Served) -> None:
        names = ("engine", "rank")
        labels = {name: getattr(served, name) for name in names}
        self._latest: Any = {"multiprocess_mode": "mostrecent"}
        self._info = Gauge(*INFO, [*names, "plan", "layout", "map"], **self._latest)
        self._budget = Gauge(*BUDGET, [*names, "layer"], **self._latest)
        made: dict[str, Any] = {}
        self._numbers = {}
        for key, number in NUMBERS.items():
            phase = {} if number.phase is None else {"phase": number.phase}
            if number.name not in made:
                of = (number.name, number.told, [*names, *phase])
                made[number.name] = Gauge(*of, **self._latest) if number.gauge else Counter(*of)
            self._numbers[key] = made[number.name].labels(**labels, **phase)
        self._labels = labels
        self._serves: dict[str, str] | None = None
        self.serve(served)

    def add(self, name: str, more: float) -> None:
        self._numbers[name].inc(more)

    def set(self, name: str, value: float) -> None:
        self._numbers[name].set(value)

    def serve(self, served: Served) -> None:
        if self._serves is not None:
            self._info.labels(**self._labels, **self._serves).set(0)
        self._serves = {"plan": served.plan, "layout": served.layout, "map": served.map}
        self._info.labels(**self._labels, **self._serves).set(1)
        for layer, tokens in enumerate(served.budgets):
            self._budget.labels(**self._labels, layer=str(layer)).set(tokens)


class _Ranks(Collector):
    """All ranks' files of the processes that this one started; nothing where there is no plan."""

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        folder = Path(os.environ[FOLDER])
        files = sorted(folder.glob("*.json")) if folder.is_dir() else []
        if not files:
            return
        names = ["engine", "rank"]
        info = GaugeMetricFamily(*INFO, labels=[*names, "plan", "layout", "map"])
        budget = GaugeMetricFamily(*BUDGET, labels=[*names, "layer"])
        families: dict[str, Any] = {}
        for number in NUMBERS.values():
            kind = GaugeMetricFamily if number.gauge else CounterMetricFamily
            labels = names if number.phase is None else [*names, "phase"]
            families.setdefault(number.name, kind(number.name, number.told, labels=labels))
        for file in files:
            served = Served(**json.loads(file.read_text()))
            of_rank = [served.engine, served.rank]
            info.add_metric([*of_rank, served.plan, served.layout, served.map], 1)
            for layer, tokens in enumerate(served.budgets):
                budget.add_metric([*of_rank, str(layer)], tokens)
            values = NUMBER.iter_unpack(file.with_suffix(".counts").read_bytes())
            for number, (value,) in zip(NUMBERS.values(), values, strict=True):
                phase = [] if number.phase is None else [number.phase]
                families[number.name].add_metric([*of_rank, *phase], value)
        yield from (info, budget, *families.values())


def export() -> None:
    """Let this process' `/metrics` tell what its ranks serve. Makes no file."""
    if FOLDER not in os.environ:
        folder = os.environ[FOLDER] = f"{tempfile.gettempdir()}/hplb-{uuid.uuid4().hex}"
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    REGISTRY.register(_Ranks())
