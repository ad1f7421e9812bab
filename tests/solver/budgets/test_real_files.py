"""Published figures of real models, read here without the importers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiles.cost.work import Workload
from solver.budgets.errors import BudgetError
from solver.budgets.options import BudgetOptions
from tests.solver.budgets.builders import allotted, profile_of
from tests.solver.problems import soon

DATA = Path(__file__).resolve().parents[3] / "../shared/data/heads"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}")


def profile_budgets(heads: dict[str, Any], context: int) -> tuple[Any, tuple[str, ...]]:
    key = {"budgets": "tokens", "rules": "beta"}.get(heads["form"])
    shape = np.shape(heads[key] if key else heads["kept_tokens"][0])
    budgets = allotted(profile_of(heads, *shape), BudgetOptions(), Workload(context), soon())
    assert budgets.tokens.shape == shape
    assert budgets.recovery is None
    return budgets.tokens, budgets.warnings


def test_minference_llama() -> None:
    name = "Llama_3.1_8B_Instruct_128k_kv_out_v32_fit_o_best_pattern.json"
    layers = json.loads((DATA / "minference" / name).read_text())
    stated = [[layer[str(h)][1] + layer[str(h)][2] for h in range(32)] for layer in layers]
    tokens, warnings = profile_budgets({"form": "budgets", "tokens": stated}, 131072)
    assert len(warnings) == 1
    assert (tokens == -(-np.array(stated) // 64) * 64).all()
    assert (tokens.min(), tokens.max()) == (832, 7104)
    clipped, warnings = profile_budgets({"form": "budgets", "tokens": stated}, 4096)
    assert clipped.max() == 4096
    assert f"{int((np.array(stated) > 4096).sum())} of 1024 heads" in warnings[1]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("gradientai--Llama-3-8B-Instruct-262k", (32, 32)),
        ("lmsys--vicuna-7b-v1.5-16k", (32, 32)),
        ("meta-llama--Llama-3.2-1B-Instruct", (16, 32)),
    ],
)
def test_moa(name: str, shape: tuple[int, int]) -> None:
    file = json.loads((DATA / "moa" / f"{name}.json").read_text())
    heads = {"form": "rules", "alpha_tokens": file["alphas"], "beta": file["betas"]}
    tokens, warnings = profile_budgets(heads, 131072)
    assert tokens.shape == shape
    assert len(warnings) == 1
    assert 0.3 < tokens.mean() / 131072 < 0.6
    assert len(np.unique(tokens)) > 2


@pytest.mark.parametrize(
    "name",
    ["keydiff__llama-3.1-8b-instruct", "snapkv__llama-3.1-8b-instruct"],
)
def test_tangram(name: str) -> None:
    file = np.load(DATA / "tangram" / f"{name}__profile_perlayer.npz", allow_pickle=False)
    # Kept tokens include the sink, and so does the third column of sample_meta.
    kept, contexts = file["raw_kept"][0], file["sample_meta"][:, 2]
    heads = {
        "form": "samples",
        "context_tokens": contexts.tolist(),
        "task": ["scbench"] * len(contexts),
        "kept_tokens": np.repeat(kept, 4, axis=2).tolist(),
    }
    tokens, warnings = profile_budgets(heads, 20_000)
    assert warnings == ()
    share = (kept / contexts[:, None, None]).mean(axis=0)
    blocks = np.repeat(np.ceil(np.round(share * 20_000, 6) / 64), 4, axis=1)
    assert (tokens == np.minimum(blocks * 64, 20_000)).all()
    _, warnings = profile_budgets(heads, 131072)
    assert f"{contexts.min()} to {contexts.max()}" in warnings[0]


def test_no_recovery_policy_on_figures_without_curves() -> None:
    file = json.loads((DATA / "moa/meta-llama--Llama-3.2-1B-Instruct.json").read_text())
    heads = {"form": "rules", "alpha_tokens": file["alphas"], "beta": file["betas"]}
    profile, options = profile_of(heads, 16, 32), BudgetOptions(policy="recovery")
    with pytest.raises(BudgetError, match="recovery_curves"):
        allotted(profile, options, Workload(131072), soon())
