"""A rank's numbers reach `/metrics` where vLLM collects from all its processes, and where not."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from executor.engines.vllm import metrics
from executor.weights.execution_map import ExecutionMap, Original
from executor.weights.slots import slots_of
from tests.engines.made import ROOT
from tests.executor.weights.models import DIVIDED, planned

PLAN = planned(DIVIDED, slots=2)
MADE = ExecutionMap.of(PLAN, slots_of(PLAN), original=Original(tensors_sha256="", files={}))
RANK = """
import sys
from executor.engines.vllm.metrics import RankReport
from executor.weights.execution_map import ExecutionMap
from pathlib import Path
made = ExecutionMap.load(Path(sys.argv[1]))
before = made.model_copy(update={"plan": "before", "budgets": [[999] * 6] * 2})
report = RankReport(before, (1,), 0, 1, 1024)
report.add(30, 100)
report.sampled({"prefill": (0.5, 0.75)})
report.switched(made, 0.25)
report.add(10, 50)
report.sampled({"prefill": (0.5, 0.75), "decode": (0.125, 0.25)})
report.watched({"prefill": (10, 9.5)})
report.watched({"prefill": (10, 8.5), "decode": (6, 3.0)})
report.loaded(4096)
report.wants("next", False)
report.wants(made.plan, True)
report.waiting(3)
report.dropped(4)
report.overrun()
"""
EXPECTED = {
    "hplb_steps_total": 2,
    "hplb_tiles_total": 40,
    "hplb_dense_tiles_total": 150,
    "hplb_sampled_steps_total": 2,
    "hplb_attention_seconds_total prefill": 1.0,
    "hplb_attention_seconds_total decode": 0.125,
    "hplb_attention_wall_seconds_total prefill": 1.5,
    "hplb_attention_wall_seconds_total decode": 0.25,
    "hplb_watched_rows_total prefill": 20,
    "hplb_watched_rows_total decode": 6,
    "hplb_held_rows_total prefill": 18,
    "hplb_held_rows_total decode": 3,
    "hplb_plan_switches_total": 1,
    "hplb_plan_loaded_bytes_total": 4096,
    "hplb_plan_wanted_timestamp_seconds": 0,
    "hplb_plan_switch_seconds_total": 0.25,
    "hplb_spooled_batches": 3,
    "hplb_dropped_steps_total": 4,
    "hplb_overrun_steps_total": 1,
}


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """Values by name, of rank 1; budgets by layer, times by phase, only plans that are served."""
    found = {}
    for line in generate_latest(registry).decode().splitlines():
        if line.startswith("hplb_"):
            labels, _, value = line.rpartition(" ")
            assert 'rank="1"' in labels
            layer = labels.partition('layer="')[2].partition('"')[0]
            phase = labels.partition('phase="')[2].partition('"')[0]
            name = labels.partition("{")[0]
            if name == "hplb_plan_info":
                served = labels.partition('plan="')[2].partition('"')[0] == MADE.plan
                assert float(value) == served
                if not served:
                    continue
            found[name + layer + f" {phase}".rstrip()] = float(value)
    return found


@pytest.mark.parametrize("several", [False, True])
def test_a_ranks_numbers_are_collected(
    several: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MADE.save(tmp_path)
    for name in ("PROMETHEUS_MULTIPROC_DIR", metrics.FOLDER):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(metrics.FOLDER, str(tmp_path / "files"))
    if several:
        (tmp_path / "shared").mkdir()
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "shared"))
    registry = CollectorRegistry()
    if several:
        MultiProcessCollector(registry)
    else:
        registry.register(metrics._Ranks())
    assert samples(registry) == {}
    began = time.time()
    subprocess.run([sys.executable, "-c", RANK, str(tmp_path)], cwd=ROOT, check=True)
    found = samples(registry)
    assert {name: found.pop(name) for name in EXPECTED} == EXPECTED
    assert found.pop("hplb_plan_info") == 1
    assert began <= found.pop("hplb_plan_live_timestamp_seconds") <= time.time()
    # Of head 2 the rank has 0.7 of the rows in layer 0, 0.4 in layer 1, there half of head 3 too.
    budgets = MADE.budgets
    first = 0.7 * budgets[0][2] + sum(budgets[0][3:])
    second = 0.4 * budgets[1][2] + 0.5 * budgets[1][3] + sum(budgets[1][4:])
    assert found == pytest.approx({"hplb_budget_tokens0": first, "hplb_budget_tokens1": second})
    assert (tmp_path / "files").exists() is not several


def test_the_log_says_budgets_by_the_longest_context() -> None:
    made = MADE.model_copy(update={"budgets": [[64] * 6, [64] * 5 + [4096]]})
    said = "budgets of 400 tokens a head (64 to 4096), 14.1 % of a context of 1024"
    assert metrics.budgets_of(made, 1024) == said
