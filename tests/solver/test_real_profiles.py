"""Every importable file on 2, 4 and 8 devices, on one of them by every method: the verifier accepts
the plan."""

from pathlib import Path

import pytest

from profiles.importers import duo_attention, minference, moa, tangram
from profiles.model import ModelProfile
from profiles.public_models import resolve_architecture
from solver.search.starts import HEURISTICS
from tests.profiles.published import HEADS
from tests.solver.profiles import faults, plan_of

IMPORTERS = {
    "minference": minference.read,
    "moa": moa.read,
    "duo-attention": duo_attention.read,
    "tangram": tangram.read,
}
DEVICES = (2, 4, 8)
FILES = sorted(path for folder in IMPORTERS for path in (HEADS / folder).glob("*.*"))


pytestmark = pytest.mark.skipif(not HEADS.exists(), reason=f"{HEADS} is not on this machine")


def imported(path: Path) -> ModelProfile:
    return IMPORTERS[path.parent.name](path, "real", resolve_architecture(path))


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name[:40])
def test_plans_of_real_heads_pass_the_verifier(path: Path) -> None:
    profile = imported(path)
    # In turn, so that every method, and divided heads, meet every number of devices.
    by_every_method = DEVICES[FILES.index(path) % len(DEVICES)]
    for gpus in DEVICES:
        makespans = {}
        every = [*HEURISTICS, "cp_sat", "ilp", "auto"]
        for method in every if gpus == by_every_method else ["greedy", "auto"]:
            plan = plan_of(
                profile, gpus=gpus, method=method, context_tokens=131_072, time_limit_s=0.15
            )
            assert faults(plan) == [], (gpus, method)
            makespans[method] = plan.makespan_s
        best = min(makespans[name] for name in HEURISTICS if name in makespans)
        assert makespans["auto"] <= best * (1 + 1e-12)
        if gpus != by_every_method:
            continue
        for method in ("cp_sat", "ilp"):
            assert makespans[method] <= makespans["greedy"] * (1 + 1e-12)
        rules = {"gpus": gpus, "context_tokens": 131_072, "time_limit_s": 2}
        divided = plan_of(profile, placement={"divisible": True}, **rules)
        free = plan_of(profile, placement={"divisible": True, "copies": "free"}, **rules)
        for plan in (divided, free):
            assert faults(plan) == [], plan.rules
        assert divided.makespan_s <= makespans["auto"] * (1 + 1e-12)
        assert free.imbalance is not None
        assert free.imbalance <= 1.01


@pytest.mark.parametrize("name", ["Llama_3.1_8B", "Qwen2.5_72B"])
def test_hplb_says_where_there_is_nothing_to_gain(name: str) -> None:
    paths = [p for p in FILES if name in p.name and ("v2" in p.name or "72B" in p.name)]
    assert len(paths) == 1
    plan = plan_of(imported(paths[0]), gpus=8, context_tokens=131_072)
    assert any("nothing to gain" in warning for warning in plan.warnings)
