"""The GPU benchmarks on a CPU: they run, they notice what is wrong, and no failure stops them."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu import plans, timing
from benchmarks.gpu.aims import AIMS
from benchmarks.gpu.check_units import units
from benchmarks.gpu.makespan import simulated
from benchmarks.gpu.oracle import allowed_pieces, prefill_oracle, relative_error
from benchmarks.gpu.rows import has_figures
from benchmarks.gpu.scene import Shape, Tile, drawn, problems, whole_heads
from benchmarks.gpu.suite import SECTIONS
from benchmarks.gpu.uniform_sparse import budget_for, in_runs
from benchmarks.gpu_results.calls import calls
from benchmarks.gpu_results.reading import newest, read
from executor.attention.lists import lay_out
from executor.kernels.batch import Chunk
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import Pooled
from tests.executor.kernels import reference
from tests.executor.kernels.compiled import compiled_by

ROOT = Path(__file__).parents[2]
COUNTED = ("dense", "uniform_sparse", "headline", "selection", "decode", "head_budgets")
"""Sections whose rows say what was done in the time."""


@pytest.mark.slow
def test_the_whole_suite_runs_on_tiny_shapes(tmp_path):
    written = tmp_path / "found.json"
    finished = subprocess.run(
        ["benchmarks/gpu/run_all.sh", "--tiny", "--json", written, "--seconds", "1200"],
        cwd=ROOT,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=1300,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    found = json.loads(written.read_text())
    assert {"torch", "triton", "command", "date", "commit", "gpu"} <= set(found["machine"])
    assert set(found["sections"]) == {*units(tiny=True), *SECTIONS}
    for name, section in found["sections"].items():
        assert section["label"] == "interpreter, not a measurement"
        assert (section["complete"], section["ended"]) == (True, "finished")
        assert section["rows"], name
        assert all(has_figures(row) and row.get("ok", True) for row in section["rows"]), name
    for name in COUNTED:
        for row in found["sections"][name]["rows"]:
            assert row["work"], row
            assert row["work"].keys() <= row.keys()
    aimed = {row for aim in AIMS for row in [(aim.section, aim.column)]}
    columns = {(n, c) for n, s in found["sections"].items() for row in s["rows"] for c in row}
    assert aimed <= columns
    # Were it a GPU's, rates would be fitted to it.
    found["machine"] |= {"gpu": "NVIDIA H200", "commit": "0" * 40}
    written.write_text(json.dumps(found))
    (results,) = newest([read(written, made_up=True)]).values()
    assert {call.place.partition(":")[0] for call in calls(results)} == {*COUNTED, "ceilings"}


@pytest.mark.slow
@pytest.mark.parametrize("script", ["sanitize", "tune"])
def test_the_other_scripts_run_on_tiny_shapes(script):
    command = [sys.executable, "-m", f"benchmarks.gpu.{script}", "--tiny"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "failed: []" in finished.stdout or "0 did not run" in finished.stdout


@pytest.mark.slow
def test_what_tells_where_decode_runs_takes_what_decode_takes():
    compiled = compiled_by("compile_spread.py")
    assert compiled["placed"].pop("reads") == 1
    assert compiled["decode"].pop("reads") == 0
    assert compiled["placed"] == compiled["decode"]


def test_nothing_but_torch_triton_and_numpy_is_imported_on_a_gpu_machine():
    files = (ROOT / "benchmarks" / "gpu").glob("*.py")
    # Plans are made where the planner is.
    names = sorted(f"benchmarks.gpu.{file.stem}" for file in files if file.stem != "make_plans")
    script = f"""
import importlib.metadata, re, sys

def needs(name):
    found = {{name}}
    for line in importlib.metadata.requires(name) or []:
        if "extra ==" not in line:
            one = re.match("[A-Za-z0-9._-]+", line)[0]
            try:
                found |= needs(one)
            except importlib.metadata.PackageNotFoundError:
                pass
    return {{re.sub("[-_.]+", "-", each).lower() for each in found}}

allowed = needs("torch") | needs("triton") | {{"numpy"}}
provided = importlib.metadata.packages_distributions()

class Refusing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        by = {{re.sub("[-_.]+", "-", each).lower() for each in provided.get(top, [])}}
        if by and not by & allowed and top not in ("benchmarks", "executor", "profiles"):
            raise ModuleNotFoundError(f"refused {{name}}", name=name)

sys.meta_path.insert(0, Refusing())
try:
    import pydantic
except ModuleNotFoundError:
    pass
else:
    sys.exit("nothing is refused")
for name in {names}:
    importlib.import_module(name)
print(*(each for each in sys.modules if each.split(".")[0] in ("profiles", "solver", "api")))
"""
    finished = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert finished.returncode == 0, finished.stderr
    assert set(finished.stdout.split()) <= {"profiles", "profiles.errors", "profiles.sizes"}


def test_every_scheme_of_every_input_computes_each_row_once():
    layers = list(plans.layers())
    assert {layer.context_tokens for layer in layers} == {32_768, 65_536, 131_072}
    assert {layer.shape.query_heads for layer in layers} == {32, 28}
    for layer in layers:
        assert set(layer.devices) == set(layer.kv_copies)
        for scheme, devices in layer.devices.items():
            assert len(devices) == 8
            rows = sorted((x.head, x.first, x.last) for share in devices for x in share)
            for head in range(layer.shape.query_heads):
                ends = [0]
                for number, first, last in rows:
                    if number == head:
                        assert first == ends[-1], (layer.profile, scheme, head)
                        ends.append(last)
                assert ends[-1] == layer.rows, (layer.profile, scheme, head)
            coarse = sum(x.last - x.first for share in devices for x in plans.coarser(share))
            assert coarse == layer.shape.query_heads * -(-layer.rows // 2)


def test_uniform_and_adaptive_budgets_are_equal_in_what_the_input_says():
    def tiles(budget: int, rows: int) -> int:
        return budget * (budget + 1) // 2 + (rows - budget) * budget

    for layer in plans.layers():
        if layer.synthetic:
            assert layer.uniform == max(layer.adaptive)
            continue
        adaptive = sum(tiles(budget, layer.rows) for budget in layer.adaptive)
        uniform = tiles(layer.uniform, layer.rows) * layer.shape.query_heads
        step = layer.rows * layer.shape.query_heads
        assert abs(adaptive - uniform) <= step / 2, (layer.profile, layer.context_tokens)


@pytest.mark.parametrize("page_tokens", [0, 16, 64])
@pytest.mark.parametrize("block", [16, 32])
def test_the_vectorised_oracle_agrees_with_the_reference(page_tokens, block):
    shape, chunks = Shape(4, 2, 16), (Chunk(0, 70), Chunk(39, 30), Chunk(0, 1))
    tensors = drawn(
        shape,
        chunks,
        device=torch.device("cpu"),
        dtype=torch.float32,
        page_tokens=page_tokens,
        gaps=page_tokens > 0,
    )
    heads = [HeadBlocks(0, 0, 3, 1, 3), HeadBlocks(3, 1, 9, 2, 3, 1), HeadBlocks(2, 1, 1, 0, 1, 2)]
    layout = lay_out(heads, chunks, block, piece_tokens=16)
    indices = reference.random_indices(layout)
    out, lse = prefill_oracle(tensors.q, tensors.cache, layout, indices)
    wanted, wanted_lse = reference.prefill_reference(tensors.q, tensors.cache, layout, indices)
    computed = wanted_lse > -torch.inf
    assert torch.equal(computed, ~lse.isnan())
    torch.testing.assert_close(out[computed], wanted[computed])
    torch.testing.assert_close(lse[computed], wanted_lse[computed])


def test_an_error_is_infinite_where_the_wrong_rows_were_written():
    wanted = torch.tensor([[1.0, 2.0], [torch.nan, torch.nan]], dtype=torch.float64)
    assert relative_error(torch.tensor([[1.0, 2.0], [torch.nan, torch.nan]]), wanted) == 0
    assert relative_error(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), wanted) == torch.inf
    assert relative_error(torch.tensor([[1.0, torch.nan], [torch.nan] * 2]), wanted) == torch.inf
    assert 0 < relative_error(torch.tensor([[1.0, 2.1], [torch.nan] * 2]), wanted) < 0.1


def test_the_simulation_finds_what_order_is_worth():
    chunks = (Chunk(0, 64 * 64),)
    heads = whole_heads(Shape(4, 4), [64, 2, 2, 2], 64, Pooled())
    layout = lay_out(heads, chunks, 64)
    longest_first = simulated(layout, layout.order.tolist(), 8)
    assert 1 <= longest_first < 1.05
    assert simulated(layout, layout.order.flip(0).tolist(), 8) > longest_first


@pytest.mark.parametrize("tile", [Tile(16, 16), Tile(64, 16)])
def test_a_budget_is_found_for_a_density(tile):
    tokens = 128 * tile.block
    for density in (0.5, 0.1, 0.05):
        budget = budget_for(density, 128, tile.per_block)
        options = {"piece_tokens": tile.piece}
        heads = whole_heads(Shape(1, 1), budget, 128)
        layout = lay_out(heads, (Chunk(0, tokens),), tile.block, **options)
        dense = whole_heads(Shape(1, 1), 10**6, 128)
        every = lay_out(dense, (Chunk(0, tokens),), tile.block, **options).tiles
        assert layout.tiles / every == pytest.approx(density, rel=0.1)


def test_pieces_in_runs_are_those_of_the_blocks_that_lists_hold():
    def of(tile: Tile, budget: int):
        (found,) = problems(Shape(2, 1, 16), 128, tile, budget, device=torch.device("cpu"))
        return found

    blocks, pieces = of(Tile(32, 32), 2), of(Tile(32, 16), 4)
    runs = in_runs(pieces, blocks)
    allowed = allowed_pieces(runs.layout, runs.indices, 0, runs.layout.lists, 8)
    wanted = allowed_pieces(blocks.layout, blocks.indices, 0, blocks.layout.lists, 4)
    assert torch.equal(allowed, wanted.repeat_interleave(2, 1))
    assert pieces.flops == blocks.flops
    assert pieces.density == blocks.density == (1 + 2 + 2 + 2) / 10


class Clock:
    """Stands for a GPU on which every call takes 2 ms, a replayed graph 2 ms for each call."""

    def __init__(self, monkeypatch):
        self.now_ms, self.replayed = 0.0, []
        properties = SimpleNamespace(L2_cache_size=50, total_memory=4000)
        for name, stub in {
            "is_available": lambda: True,
            "synchronize": lambda: None,
            "_sleep": lambda _: None,
            "get_device_properties": lambda _: properties,
            "Event": self.event,
            "CUDAGraph": self.graph,
            "graph": self.capture,
        }.items():
            monkeypatch.setattr(torch.cuda, name, stub)

    def call(self):
        self.now_ms += 2.0

    def event(self, enable_timing):
        assert enable_timing
        event = SimpleNamespace(at=None)
        event.record = lambda: setattr(event, "at", self.now_ms)
        event.elapsed_time = lambda end: end.at - event.at
        return event

    def graph(self):
        graph = SimpleNamespace(calls_ms=0.0)
        graph.replay = lambda: setattr(self, "now_ms", self.now_ms + graph.calls_ms)
        return graph

    @contextmanager
    def capture(self, graph):
        began = self.now_ms
        yield
        graph.calls_ms, self.now_ms = self.now_ms - began, began


def test_a_call_is_timed_alone_and_in_a_graph_of_all_sets(monkeypatch):
    clock = Clock(monkeypatch)
    used = []

    def on(number):
        def call():
            used.append(number)
            clock.call()

        return call

    took = timing.timed([on(number) for number in range(3)], seconds=0.02)
    assert (took.median_s, took.p10_s, took.p90_s) == pytest.approx((0.002,) * 3)
    assert (took.samples, took.graph) == (10, False)
    # Each once to compile, then in turn.
    assert used == [0, 1, 2, *(number % 3 for number in range(10))]
    took = timing.timed([on(number) for number in range(3)], seconds=0.03, graph=True)
    assert took.median_s == pytest.approx(0.002)
    assert (took.samples, took.graph) == (5, True)


def test_inputs_are_rotated_until_the_cache_has_lost_them(monkeypatch):
    Clock(monkeypatch)
    assert [timing.rotation(size) for size in (1000, 150, 149, 50, 2)] == [1, 1, 2, 3, 64]
    assert timing.rotation(1999) == 1
    assert timing.room_bytes() == 2000
