"""The GPU benchmarks on a CPU: they run, they notice what is wrong, and no failure stops them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import plans
from benchmarks.gpu.__main__ import GRACE_S, hangs
from benchmarks.gpu.aims import AIMS
from benchmarks.gpu.makespan import simulated
from benchmarks.gpu.oracle import prefill_oracle, relative_error
from benchmarks.gpu.scene import Shape, drawn, whole_heads
from benchmarks.gpu.section import Section
from benchmarks.gpu.suite import SECTIONS
from benchmarks.gpu.summary import failed_checks, summary
from benchmarks.gpu.uniform_sparse import budget_for
from executor.kernels.batch import Chunk
from executor.kernels.layout import HeadRows, lay_out
from executor.kernels.patterns import Pooled
from tests.executor.kernels import reference

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_whole_suite_runs_on_tiny_shapes(tmp_path):
    written = tmp_path / "found.json"
    finished = subprocess.run(
        ["benchmarks/gpu/run_all.sh", "--tiny", "--json", written, "--seconds", "240"],
        cwd=ROOT,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    found = json.loads(written.read_text())
    assert {"torch", "triton", "command", "date", "commit", "gpu"} <= set(found["machine"])
    assert set(found["sections"]) == {"check-0", *SECTIONS}
    for name, section in found["sections"].items():
        assert section["label"] == "interpreter, not a measurement"
        assert section["complete"]
        assert section["rows"], name
        assert not [row for row in section["rows"] if "error" in row and "trace" in row], name
    aimed = {row for aim in AIMS for row in [(aim.section, aim.column)]}
    columns = {(n, c) for n, s in found["sections"].items() for row in s["rows"] for c in row}
    assert aimed <= columns


@pytest.mark.slow
@pytest.mark.parametrize("script", ["sanitize", "tune"])
def test_the_other_scripts_run_on_tiny_shapes(script):
    command = [sys.executable, "-m", f"benchmarks.gpu.{script}", "--tiny"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "failed: []" in finished.stdout or "0 did not run" in finished.stdout


def test_nothing_but_torch_and_the_kernels_is_imported_on_a_gpu_machine():
    modules = [f"benchmarks.gpu.{name}" for name in ("check", "tune", "sanitize", *SECTIONS)]
    script = f"""
import sys
sys.modules.update(dict.fromkeys(("solver", "pydantic", "scipy", "ortools")))
for name in {modules}:
    __import__(name)
"""
    finished = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert finished.returncode == 0, finished.stderr


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


@pytest.mark.parametrize("paged", [False, True])
def test_the_vectorised_oracle_agrees_with_the_reference(paged):
    shape, block = Shape(4, 2, 16), 16
    chunks = (Chunk(0, 70), Chunk(39, 30), Chunk(0, 1))
    tensors = drawn(
        shape,
        chunks,
        block,
        device=torch.device("cpu"),
        dtype=torch.float32,
        paged=paged,
        gaps=paged,
    )
    heads = [HeadRows(0, 0, 2, 1, 4), HeadRows(3, 1, 9, 2, 5, 1), HeadRows(2, 1, 1, 0, 1, 2)]
    layout = lay_out(heads, chunks, block)
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


def test_a_failing_case_is_a_row_and_the_next_one_runs(tmp_path):
    section = Section("dense", tmp_path, tiny=True, seconds=100)

    def broken():
        raise ValueError("no such kernel")

    assert section.attempt("first", broken) is None
    assert section.attempt("second", lambda: {"s": 1.0}) == {"case": "second", "s": 1.0}
    section.finish()
    found = json.loads((tmp_path / "dense.json").read_text())
    assert found["complete"]
    assert found["rows"][0]["error"] == "no such kernel"
    assert "broken" in found["rows"][0]["trace"]
    assert found["rows"][1] == {"case": "second", "s": 1.0}


def test_nothing_is_begun_when_the_time_is_up(tmp_path):
    section = Section("dense", tmp_path, tiny=True, seconds=0)
    assert section.attempt("late", lambda: pytest.fail("begun")) is None
    assert section.rows == [{"case": "late", "skipped": "no time left"}]


def test_a_wrong_result_and_a_dead_process_are_failed_checks_but_not_what_was_skipped():
    fine = {"case": "a", "ok": True}
    sections = {
        "check-0": {"complete": True, "rows": [fine, {"case": "b", "skipped": "no time left"}]},
        "dense": {"complete": False, "rows": [{"case": "c", "error": "e", "trace": "t"}]},
    }
    assert failed_checks(sections) == []
    assert "dense: errors in ['c'], 0 skipped, ended early" in summary(sections, tiny=False)
    sections["check-1"] = {"complete": False, "rows": [fine, {"case": "d", "ok": False}]}
    assert [row["case"] for row in failed_checks(sections)] == ["check-1", "d"]


def test_only_the_section_under_way_can_hang():
    now = time.time()
    late = {"complete": False, "until": now - GRACE_S - 1}
    assert hangs({"dense": late}, ["dense"], now + 100)
    assert not hangs({"dense": late | {"complete": True}}, ["dense"], now + 100)
    assert not hangs({"dense": late}, ["headline"], now + 100)
    assert hangs({}, ["headline"], now - 100)


def test_the_simulation_finds_what_order_is_worth():
    chunks = (Chunk(0, 64 * 64),)
    heads = whole_heads(Shape(4, 4), [64, 2, 2, 2], 64, Pooled())
    layout = lay_out(heads, chunks, 64)
    longest_first = simulated(layout, layout.order.tolist(), 8)
    assert 1 <= longest_first < 1.05
    assert simulated(layout, layout.order.flip(0).tolist(), 8) > longest_first


def test_a_budget_is_found_for_a_density():
    rows = 512
    for density in (0.5, 0.1, 0.0125):
        budget = budget_for(density, rows)
        tiles = budget * (budget + 1) / 2 + (rows - budget) * budget
        assert tiles / (rows * (rows + 1) / 2) == pytest.approx(density, rel=0.1)
