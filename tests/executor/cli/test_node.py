import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
import torch
from typer.testing import CliRunner

from executor.cli import node as cli
from executor.cli.node import multiprocessors
from executor.errors import CannotMeasureError
from profiles.errors import UnknownNameError
from tests.executor.fake_planner import FakePlanner

NO_PLANNER = "http://127.0.0.1:9"


def run(*arguments: str, server: str = NO_PLANNER) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["--server", server, *arguments])
    return result.exit_code, result.stderr.splitlines()[-1]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """The command configures the whole process's log."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the driver says it has; a test fills it."""
    names: list[str] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: names[index])
    return names


def test_no_gpu_is_the_cpu(gpus: list[str]) -> None:
    assert gpus == []
    assert cli.local_devices(2, None) == (["cpu", "cpu"], ["cpu", "cpu"])


def test_gpus_are_recognised_and_dealt_out(gpus: list[str]) -> None:
    gpus += ["NVIDIA H200", "NVIDIA A100-SXM4-80GB"]
    types, accelerators = cli.local_devices(3, None)
    assert types == ["h200", "a100", "h200"]
    assert accelerators == ["cuda:0", "cuda:1", "cuda:0"]
    assert cli.local_devices(1, "cpu") == (["cpu"], ["cpu"])


def test_a_gpu_of_another_make_needs_a_type(gpus: list[str]) -> None:
    gpus += ["NVIDIA GeForce RTX 4090"]
    with pytest.raises(CannotMeasureError, match=r"RTX 4090.*--device-type"):
        cli.local_devices(1, None)
    assert cli.local_devices(1, "a100") == (["a100"], ["cuda:0"])


def test_types_that_are_not_there(gpus: list[str]) -> None:
    assert gpus == []
    with pytest.raises(CannotMeasureError, match="--device-type h200: no CUDA device here"):
        cli.local_devices(1, "h200")
    with pytest.raises(UnknownNameError, match="unknown device type 'abacus': known are a100"):
        cli.local_devices(1, "abacus")


def test_back_ends_belong_to_accelerators() -> None:
    assert cli.node_backend("auto", ["cpu"]) == "torch"
    assert cli.node_backend("auto", ["cuda:0"]) == "triton"
    with pytest.raises(CannotMeasureError, match="--backend triton: cpu is measured with torch"):
        cli.node_backend("triton", ["cpu"])
    with pytest.raises(CannotMeasureError, match="cuda:0 is measured with triton"):
        cli.node_backend("torch", ["cuda:0"])
    with pytest.raises(UnknownNameError, match="unknown back end 'magic'"):
        cli.node_backend("magic", ["cpu"])


@pytest.mark.parametrize("name", ["", "a/b", "-x", "x" * 129, "a b"])
def test_node_ids_that_are_no_names(name: str, tmp_path: Path) -> None:
    code, said = run(f"--node-id={name}", "--state-dir", str(tmp_path))
    assert code == 2
    assert said.startswith(f"error: --node-id: {name!r}")


def test_servers_that_are_no_urls(tmp_path: Path) -> None:
    code, said = run("--device-type", "cpu", "--state-dir", str(tmp_path), server="planner")
    assert (code, said.startswith("error: 'planner' is no planner's URL")) == (2, True)


def test_a_state_dir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, said = run("--device-type", "cpu", "--state-dir", str(tmp_path / "file"))
    assert (code, said) == (
        2,
        f"error: {tmp_path / 'file'}: no usable state directory: File exists",
    )


@pytest.mark.parametrize(
    ("status", "problem", "message"),
    [
        (422, "devices: unknown type 'cpu'", "POST /nodes: 422 devices: unknown type 'cpu'"),
        (401, "no key", "POST /nodes: 401 no key; set HPLB_API_KEY to the planner's key"),
    ],
)
def test_a_planner_that_refuses_ends_the_command(
    status: int, problem: str, message: str, tmp_path: Path
) -> None:
    planner = FakePlanner().start()
    planner.refusal = (status, {"detail": problem})
    code, said = run("--device-type", "cpu", "--state-dir", str(tmp_path), server=planner.url)
    planner.stop()
    assert (code, said) == (2, f"error: {message}")


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
try:
    import executor.cli.node
except ModuleNotFoundError as error:
    sys.exit(0 if error.name == "torch" else f"{error!r}")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import sys, executor.cli.node; sys.exit('torch' in sys.modules)",
        WITHOUT_TORCH + "sys.exit('imported')",
    ],
    ids=["help-needs-no-torch", "without-torch-there-is-no-command"],
)
def test_importing_the_command(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_share_of_a_gpu_becomes_multiprocessors(monkeypatch: pytest.MonkeyPatch) -> None:
    h200 = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: h200)
    types = ["h200", "h200@0.5", "h200@0.01", "cpu"]
    places = ["cuda:0", "cuda:0", "cuda:1", "cpu"]
    assert multiprocessors(types, places) == [None, 66, 1, None]


def test_a_model_needs_prompts_and_prompts_a_model(tmp_path: Path) -> None:
    for arguments in (("--model", str(tmp_path)), ("--data", str(tmp_path))):
        code, said = run("--node-id", "n", *arguments)
        assert (code, said) == (2, "error: --model and --data: one needs the other")


def test_prompts_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"text": "a"}\n{"words": "b"}\n')
    code, said = run("--node-id", "n", "--model", str(tmp_path), "--data", str(file))
    assert code == 2
    assert "line 2" in said
