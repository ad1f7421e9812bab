"""What a user of `profiles` may rely on: its names, what its help says, and that it says so."""

import doctest
import json
import subprocess
import sys
from inspect import getdoc, signature
from pathlib import Path

import numpy as np
import pytest

import profiles
from profiles import (
    ModelProfile,
    Rates,
    catalogue,
    device_profile,
    import_profile,
    load_profile,
    measure,
    refit,
)
from profiles.cost.roofline import roofline
from profiles.cost.samples import Sample
from profiles.cost.work import Workload, head_work
from tests.profiles.measuring import tiny

NAMES = {
    "load_profile",
    "import_profile",
    "measure",
    "ModelProfile",
    "Rates",
    "refit",
    "DeviceProfile",
    "device_profile",
}


def test_the_names() -> None:
    assert set(profiles.__all__) == NAMES
    assert set(dir(profiles)) >= NAMES
    found: dict[str, object] = {}
    exec("from profiles import *", found)
    assert set(found) - {"__builtins__"} == NAMES


def test_there_is_no_other() -> None:
    with pytest.raises(AttributeError, match="module 'profiles' has no attribute 'load'"):
        profiles.load  # noqa: B018


@pytest.mark.parametrize("name", sorted(NAMES))
def test_help_says_what_it_is(name: str) -> None:
    assert len(getdoc(getattr(profiles, name)) or "") > 200


def test_the_arguments() -> None:
    def arguments(of: object) -> str:
        return " ".join(signature(of).parameters)  # type: ignore[arg-type]

    assert arguments(load_profile) == "name_or_path"
    assert arguments(device_profile) == "name"
    assert arguments(import_profile) == (
        "path name kind model config threshold full_share sink_tokens recent_tokens "
        "capacity_tokens beta window_tokens"
    )
    assert arguments(measure) == (
        "model data contexts block_tokens piece_tokens rows prompts seed selection sink_tokens "
        "local_tokens gradients name state device dtype threads progress"
    )
    assert arguments(refit) == "prior device samples forgetting source"


def test_the_examples_in_its_help_run() -> None:
    for module in (profiles, catalogue):
        found = doctest.testmod(module)
        assert found.attempted >= 4
        assert found.failed == 0


@pytest.mark.slow
def test_importing_it_loads_next_to_nothing() -> None:
    script = "import sys, profiles; sys.exit('numpy' in sys.modules or 'pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.slow
def test_torch_is_loaded_when_a_model_is_measured() -> None:
    script = "import sys; from profiles import *; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_published_file_a_measured_model_and_rates(tmp_path: Path) -> None:
    """Every way to a profile and to rates, as a notebook takes them."""
    file = tmp_path / "Llama-3.2-1B.json"
    file.write_text(json.dumps({"alphas": [[64] * 32] * 16, "betas": [[0.5] * 32] * 16}))
    rules = import_profile(file, name="rules")
    rules.save(tmp_path / "rules.json")
    assert load_profile(tmp_path / "rules.json") == rules == load_profile(f"{tmp_path}/rules.json")

    data = tiny.prompts(tmp_path / "data.jsonl", {"one": [80]})
    model = tiny.model(tmp_path / "llama")
    seen: list[tuple[int, int, str]] = []
    mine = measure(
        model, data, [64], block_tokens=16, rows=8, progress=lambda *now: seen.append(now)
    )
    assert isinstance(mine, ModelProfile)
    assert (mine.name, mine.heads.form, mine.heads.shape()) == ("llama", "recovery_curves", (2, 4))
    assert [(done, total) for done, total, _ in seen] == [(0, 2), (1, 2), (2, 2)]
    assert (seen[0][2], seen[2][2]) == ("one, 64 tokens", "done")

    device = device_profile("h200")
    prior = roofline(device, "prefill")
    work = head_work(np.array(32.0), mine.architecture, Workload(64))
    slow = 3 * float(prior.seconds(work))
    found = refit(prior, device, [Sample(work, slow)] * 20).rates
    assert isinstance(found, Rates)
    assert float(found.seconds(work)) == pytest.approx(slow, rel=0.05)
