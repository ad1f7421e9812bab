"""How all properties are tried, what `make check` leaves out beside the tests marked slow, and what
begins first where several processes share the tests."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# No example is timed, and 50 are drawn unless a test says more.
settings.register_profile("hplb", deadline=None, max_examples=50)
settings.load_profile("hplb")

# Before anything imports Triton, as transformers does: what it compiles is interpreted then.
os.environ["TRITON_INTERPRET"] = "1"
# Of torch, in started processes too: tiny tensors wait longer for a second thread than it saves.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every process that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

HERE = Path(__file__).parent
SLOW = (
    # Kernels in Triton's interpreter, and attention and models through torch.
    "executor/kernels",
    "executor/attention",
    "executor/cli",
    "executor/engines",
    "executor/evaluation",
    "executor/inference",
    "executor/node",
    "executor/weights",
    "executor/test_attention_checks.py",
    "executor/test_cpu_attention_benchmark.py",
    "executor/test_cpu_flex_benchmark.py",
    "executor/test_decode_cpu_benchmark.py",
    "executor/test_front_door.py",
    "executor/test_gpu_benchmarks.py",
    "profiles/measuring",
    "profiles/tasks/test_ruler.py",
    "test_reference_training.py",
    # The service through its application, its database and its events.
    "api/client/test_wire.py",
    "api/loop",
    "api/routes",
    "api/solves",
    "api/test_auth.py",
    "api/test_mutated_bodies.py",
    "api/test_openapi.py",
    # Searches against optima by other programs, and of many policies.
    "profiles/cost/test_cost_model_benchmark.py",
    "solver/budgets/test_elastic.py",
    "solver/budgets/test_max_min.py",
    "solver/budgets/test_small_blocks.py",
    "solver/cli",
    "solver/coupling/test_memory.py",
    "solver/divide/test_divide.py",
    "solver/exact/test_cbc.py",
    "solver/filling/test_bound.py",
    "solver/planning/test_planner.py",
    "solver/search/test_optima.py",
    "solver/search/test_real_layers.py",
    "solver/test_front_door.py",
    "solver/test_pieces.py",
    "solver/test_rows.py",
    "solver/verifier/test_bounds.py",
    "test_engines_benchmark.py",
    "test_results_page.py",
    # Commands as processes, and pictures drawn.
    "api/demo/test_findings.py",
    "api/demo/test_round_trip.py",
    "api/store/test_backup.py",
    "api/test_main.py",
    "executor/test_rehearsal.py",
    "profiles/cli",
    "test_command_line.py",
)
"""Files and folders whose tests together take most of the time."""
SLOW_PATHS = {HERE / name for name in SLOW}
FIRST = (
    "executor/kernels/test_prefill_compile.py",
    "executor/kernels/test_select_compile.py",
    "executor/kernels/test_decode_compile.py",
    "executor/test_gpu_benchmarks.py",
    "api/demo/test_round_trip.py",
    "api/store/test_readiness.py",
    "api/store/test_database.py",
    "api/test_server.py",
    "executor/engines/transformers/test_ranks.py",
    "executor/cli/test_run.py",
    "solver/test_real_profiles.py",
    "test_examples.py",
    "profiles/measuring/test_memory.py",
    "executor/test_gpu_runs.py",
)
"""Files with tests of ten seconds or more: at the end the other processes would wait for them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--mutations", type=int, default=300, help="of bodies, in tests/api/test_mutated_bodies.py"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What is left out anyway need not be loaded."""
    left_out = config.option.markexpr == "not slow" and collection_path in SLOW_PATHS
    return True if left_out else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SLOW_PATHS & {item.path, *item.path.parents}:
            item.add_marker(pytest.mark.slow)
    if "PYTEST_XDIST_WORKER" in os.environ:
        first = {HERE / name for name in FIRST}
        items.sort(key=lambda item: item.path not in first)
