import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiles.architecture import Architecture
from profiles.errors import ProfileError
from profiles.heads import BudgetsForm
from profiles.importers import headkv
from profiles.public_models import MODELS

TINY = Architecture(layers=2, query_heads=2, kv_heads=1, head_dim=64, hidden_size=128)
SCORES = {"0-0": [0, 0.4], "0-1": [0.1, 0.1], "1-0": [0, 0], "1-1": [1, 0.4]}
"""Means 0.2, 0.1, 0 and 0.7."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scores.json"


def budgets(path: Path, content: Any, **options: Any) -> list[list[float]]:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    options = {"capacity_tokens": 128, "beta": 1.5, **options}
    heads = headkv.read(path, "x", options.pop("architecture", TINY), **options).heads
    assert isinstance(heads, BudgetsForm)
    return heads.tokens


def test_budgets_by_the_rule(path: Path) -> None:
    """Of 96 tokens beyond the window every head gives 64 to a pool of 256, and keeps 32."""
    assert budgets(path, SCORES) == [[51 + 64, 26 + 64], [64, 179 + 64]]
    assert np.mean(budgets(path, SCORES)) == 128
    assert (
        "capacity 128, beta 1.5, window 32 tokens"
        in headkv.read(path, "x", TINY, capacity_tokens=128, beta=1.5).source
    )


def test_beta_1_shares_all_and_a_large_one_little(path: Path) -> None:
    assert budgets(path, SCORES, beta=1) == [[109, 70], [32, 301]]
    assert budgets(path, SCORES, beta=96) == [[128, 127], [127, 130]]
    assert budgets(path, SCORES, window_tokens=64) == [[120, 103], [86, 204]]


def test_heads_are_taken_by_name_and_not_in_the_files_order(path: Path) -> None:
    shuffled = dict(sorted(SCORES.items(), reverse=True))
    assert budgets(path, shuffled) == budgets(path, SCORES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must be a JSON object from 'layer-head'"),
        ({}, "must be a JSON object from 'layer-head'"),
        ({**SCORES, "2-00": [1]}, "'2-00' is not 'layer-head'"),
        ({**SCORES, "head": [1]}, "'head' is not 'layer-head'"),
        ({**SCORES, "0-2": [1]}, "head 1-2 is missing from 2 layers of 3 heads"),
        ({**SCORES, "0-1": 0.5}, "head 0-1: must be a list of scores"),
        ({**SCORES, "0-1": []}, "head 0-1: must be a list of scores"),
        ({**SCORES, "0-1": [-0.1]}, "head 0-1: -0.1 is not a score from 0"),
        ('{"0-0": [NaN]}', "head 0-0: nan is not a score from 0"),
        ({**SCORES, "0-1": [True]}, "head 0-1: True is not a score"),
        ({head: [0, 0] for head in SCORES}, "all scores are 0"),
        ('{"0-0": [1], "0-0": [2]}', "0-0: stands twice in one object"),
    ],
)
def test_broken_files(path: Path, content: Any, message: str) -> None:
    with pytest.raises(ProfileError, match=rf"scores\.json: {message}"):
        budgets(path, content)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity_tokens": None}, r"scores are no budgets: .*\(--capacity-tokens and --beta\)"),
        ({"beta": None}, r"scores are no budgets: .*\(--capacity-tokens and --beta\)"),
        ({"capacity_tokens": 32}, "capacity_tokens 32 and window_tokens 32"),
        ({"window_tokens": 0}, "the window must be at least 1"),
        ({"beta": 0.5}, "beta: must be at least 1, found 0.5"),
        ({"beta": float("nan")}, "beta: must be at least 1, found nan"),
        ({"architecture": MODELS["Llama-2-7B"]}, r"2 x 2 \(layers x query heads\), but .* 32 x 32"),
    ],
)
def test_what_the_rule_needs(path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        budgets(path, SCORES, **options)
