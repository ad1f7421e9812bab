"""What a rank serves and has computed, in Prometheus beside vLLM's own metrics.

vLLM exports from its first process, and attention runs in others. Each rank keeps three numbers in
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
from profiles.files import write_atomically

FOLDER = "HPLB_VLLM_METRICS"
"""The environment variable by which vLLM's processes know where the ranks' files are."""
COUNTS = struct.Struct("=3d")
LOG_SECONDS = 10.0
INFO = "hplb_plan_info", "The plan that a rank serves."
BUDGET = "hplb_budget_tokens", "Budgets of a rank's heads in a layer, by their shares, summed."
STEPS = "hplb_steps", "Batches that a rank attended by its plan."
TILES = "hplb_tiles", "Tiles (query block x piece of keys; pieces, for a decode) computed."
DENSE = "hplb_dense_tiles", "Tiles of the same rows with every causal piece."
logger = init_logger("vllm.hplb")


@dataclass(frozen=True)
class Served:
    """What does not change of a rank: labels, and tokens of budget [layers]."""

    engine: str
    rank: str
    plan: str
    layout: str
    map: str
    budgets: list[float]


class RankReport:
    """A rank's numbers: how many steps, how many tiles of how many, told at every step."""

    def __init__(self, made: ExecutionMap, held: tuple[int, ...], engine: int, rank: int) -> None:
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
        served = Served(str(engine), str(rank), made.plan, layout.id, made.hash, budgets)
        self._numbers: _Numbers = (
            _Collected(served) if "PROMETHEUS_MULTIPROC_DIR" in os.environ else _InFile(served)
        )
        self._steps = self._tiles = self._dense = 0
        self._logged = time.monotonic()

    def add(self, tiles: int, dense_tiles: int) -> None:
        """A step that computed `tiles` where dense attention has so many."""
        self._numbers.add(tiles, dense_tiles)
        self._steps, self._tiles = self._steps + 1, self._tiles + tiles
        self._dense += dense_tiles
        if time.monotonic() - self._logged >= LOG_SECONDS:
            share = self._tiles / max(self._dense, 1)
            logger.info(
                "HPLB: %d steps computed %.1f %% of dense attention", self._steps, 100 * share
            )
            self._steps = self._tiles = self._dense = 0
            self._logged = time.monotonic()


class _Numbers(Protocol):
    def add(self, tiles: int, dense_tiles: int) -> None: ...


class _InFile:
    """Numbers in a file of the rank's own, which it maps into memory."""

    def __init__(self, served: Served) -> None:
        folder = Path(os.environ[FOLDER])
        folder.mkdir(mode=0o700, exist_ok=True)
        name = f"{served.engine}-{served.rank}"
        with (folder / f"{name}.counts").open("w+b") as file:
            file.write(bytes(COUNTS.size))
            file.flush()
            self._shared = mmap.mmap(file.fileno(), COUNTS.size)
        write_atomically(folder / f"{name}.json", json.dumps(asdict(served)))

    def add(self, tiles: int, dense_tiles: int) -> None:
        before = COUNTS.unpack_from(self._shared)
        now = (x + more for x, more in zip(before, (1, tiles, dense_tiles), strict=True))
        COUNTS.pack_into(self._shared, 0, *now)


class _Collected:
    """Ordinary metrics, which vLLM collects from all of its processes."""

    def __init__(self, served: Served) -> None:
        names = ("engine", "rank")
        labels: dict[str, Any] = {name: getattr(served, name) for name in names}
        latest: Any = {"multiprocess_mode": "mostrecent"}
        info = Gauge(*INFO, [*names, "plan", "layout", "map"], **latest)
        info.labels(**labels, plan=served.plan, layout=served.layout, map=served.map).set(1)
        budget = Gauge(*BUDGET, [*names, "layer"], **latest)
        for layer, tokens in enumerate(served.budgets):
            budget.labels(**labels, layer=str(layer)).set(tokens)
        counters = (Counter(*told, names).labels(**labels) for told in (STEPS, TILES, DENSE))
        self._steps, self._tiles, self._dense = counters

    def add(self, tiles: int, dense_tiles: int) -> None:
        self._steps.inc()
        self._tiles.inc(tiles)
        self._dense.inc(dense_tiles)


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
        counters = [CounterMetricFamily(*told, labels=names) for told in (STEPS, TILES, DENSE)]
        for file in files:
            served = Served(**json.loads(file.read_text()))
            labels = [served.engine, served.rank]
            info.add_metric([*labels, served.plan, served.layout, served.map], 1)
            for layer, tokens in enumerate(served.budgets):
                budget.add_metric([*labels, str(layer)], tokens)
            counts = COUNTS.unpack(file.with_suffix(".counts").read_bytes())
            for counter, value in zip(counters, counts, strict=True):
                counter.add_metric(labels, value)
        yield from (info, budget, *counters)


def export() -> None:
    """Let this process' `/metrics` tell what its ranks serve. Makes no file."""
    if FOLDER not in os.environ:
        folder = os.environ[FOLDER] = f"{tempfile.gettempdir()}/hplb-{uuid.uuid4().hex}"
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    REGISTRY.register(_Ranks())
