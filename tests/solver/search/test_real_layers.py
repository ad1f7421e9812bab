"""What the search gains on real layers over the longest first: a margin stated for each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from profiles.heads import BudgetsForm
from profiles.model import ModelProfile
from tests.solver.profiles import plan_of
from tests.solver.test_real_profiles import FILES, HEADS, imported

pytestmark = pytest.mark.skipif(not HEADS.exists(), reason=f"{HEADS} is not on this machine")

STEP: dict[str, Any] = {"gpus": 8, "context_tokens": 131_072}


@dataclass(frozen=True)
class Gain:
    """Layers of a file, and by how much of greedy's makespan `auto` must at least be better.

    More than what the quick starts give, so that a search that finds nothing fails.
    """

    file: str
    least: dict[int, float]
    equal_counts: bool = False


LLAMA = "Llama_3.1_8B_Instruct_128k_kv_out_v32_fit_o_best_pattern"
QWEN = "Qwen2.5_7B_Instruct_128k_instruct_kv_out_v32_fit_o_best_pattern"
GAINS = [
    Gain(LLAMA, {7: 0.32, 28: 0.21, 31: 0.40}),
    Gain(QWEN, {4: 0.18, 6: 0.18, 18: 0.20}),
    Gain(QWEN, {10: 0.24, 12: 0.20}, equal_counts=True),
    Gain("meta-llama--Llama-3.2-1B-Instruct", {10: 0.045, 13: 0.025}),
    Gain("keydiff__llama-3.1-8b-instruct__profile_perlayer", {0: 0.025, 1: 0.05}),
    Gain("Meta-Llama-3.1-8B-Instruct", {0: 0.03, 5: 0.03}),
]


def only(profile: ModelProfile, layers: list[int]) -> ModelProfile:
    """The budgets that these layers of a profile get, as a profile of them alone."""
    budgets = np.array(plan_of(profile, method="contiguous", **STEP).budgets, dtype=float)
    architecture = profile.architecture.model_copy(update={"layers": len(layers)})
    heads = BudgetsForm(tokens=budgets[layers].tolist())
    return profile.model_copy(update={"architecture": architecture, "heads": heads})


@pytest.mark.parametrize("gain", GAINS, ids=lambda gain: f"{gain.file[:24]}-{gain.equal_counts}")
def test_auto_is_better_than_the_longest_first_by_the_margin(gain: Gain) -> None:
    [path] = [path for path in FILES if path.stem == gain.file]
    profile = only(imported(path), list(gain.least))
    rules = {**STEP, "placement": {"equal_counts": gain.equal_counts}, "tolerance": 0.005}
    greedy = plan_of(profile, method="greedy", **rules)
    auto = plan_of(profile, **rules, time_limit_s=10)
    reached = {
        layer: 1 - found.makespan_s / longest_first.makespan_s
        for layer, found, longest_first in zip(gain.least, auto.layers, greedy.layers, strict=True)
    }
    assert all(reached[layer] >= least for layer, least in gain.least.items()), reached
