import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiles.architecture import Architecture
from profiles.errors import ProfileError
from profiles.heads import RulesForm
from profiles.importers import moa
from profiles.public_models import resolve_architecture
from profiles.selection import SinkLocal
from tests.profiles.published import published

TINY = Architecture(layers=1, query_heads=2, kv_heads=1, head_dim=64, hidden_size=128)


@pytest.mark.parametrize(
    ("file", "mean_beta"),
    [
        ("gradientai--Llama-3-8B-Instruct-262k.json", 0.497),
        ("lmsys--vicuna-7b-v1.5-16k.json", None),
        ("meta-llama--Llama-3.2-1B-Instruct.json", None),
    ],
)
def test_published_files(file: str, mean_beta: float | None) -> None:
    path = published("moa", file)
    stated = json.loads(path.read_text())
    profile = moa.read(path, "real", resolve_architecture(path))
    assert isinstance(profile.heads, RulesForm)
    assert profile.heads.alpha_tokens == stated["alphas"]
    assert profile.heads.beta == stated["betas"]
    assert mean_beta is None or np.mean(profile.heads.beta) == pytest.approx(mean_beta, abs=1e-3)
    assert all(len(set(map(tuple, layer))) <= 2 for layer in _rules(profile.heads))
    assert file in profile.source
    assert profile.selection == SinkLocal(sink_tokens=64)


def _rules(heads: RulesForm) -> np.ndarray[Any, Any]:
    """MoA allows at most two distinct rules a layer, `[layers, heads, 2]`."""
    return np.stack([heads.alpha_tokens, heads.beta], axis=-1)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "not valid JSON"),
        ('{"alphas": [[0', "not valid JSON"),
        ([], "must be a JSON object"),
        ({"alphas": [[0, 0]]}, "betas is missing"),
        ({"alphas": [[0, 0]], "betas": [[0.5, float("nan")]]}, "beta: layer 0, head 1"),
        ({"alphas": [[0, 0]], "betas": [[0.5, 1.5]]}, "beta: layer 0, head 1"),
        ({"alphas": [[0, float("inf")]], "betas": [[0.5, 1]]}, "alpha_tokens: layer 0, head 1"),
        ({"alphas": [[0, 0]], "betas": [[0.5]]}, "beta: shape"),
        ({"alphas": [[0, 0], [0]], "betas": [[0.5, 1]]}, "alpha_tokens: ragged"),
        ({"alphas": [], "betas": []}, "alpha_tokens: must be a full array"),
        ({"alphas": [[0]], "betas": [[1]]}, "1 layers x 1 query heads, .* has 1 x 2"),
        ({"alphas": "zero", "betas": [[1]]}, "alpha_tokens"),
        ({"alphas": [[10**400, 0]], "betas": [[1, 1]]}, "alpha_tokens"),
    ],
)
def test_broken_files(tmp_path: Path, document: Any, message: str) -> None:
    path = tmp_path / "rules.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(ProfileError, match=rf"rules\.json: .*{message}"):
        moa.read(path, "x", TINY)
