import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.architecture import Architecture
from profiles.errors import ProfileError
from profiles.heads import RulesForm
from profiles.importers import s2
from profiles.selection import Strided

GQA = Architecture(layers=3, query_heads=8, kv_heads=4, head_dim=64, hidden_size=512)
PATTERN: dict[str, Any] = {
    "num_heads": 8,
    "num_kv_heads": 4,
    "local_blocks": 4,
    "vert_stride": 4,
    "num_dense_heads": 1,
    "block_size": 64,
}


@pytest.fixture
def rules(tmp_path: Path) -> Any:
    def rules(architecture: Architecture = GQA, **changes: Any) -> RulesForm:
        path = tmp_path / "pattern.json"
        path.write_text(json.dumps(PATTERN | changes))
        heads = s2.read(path, "x", architecture).heads
        assert isinstance(heads, RulesForm)
        return heads

    return rules


def pattern_tiles(blocks: int, local: int, stride: int, offset: int) -> int:
    """Tiles of the pattern, query block by query block (arXiv 2407.17678)."""
    query, key = np.indices((blocks, blocks))
    strided = (key + offset) % stride == 0
    return int(((key <= query) & ((query - key < local) | strided)).sum())


def rule_tiles(blocks: int, budget: float) -> float:
    """Sum over query blocks i of min(budget, i + 1), budget in blocks."""
    return float(np.minimum(budget, np.arange(1, blocks + 1)).sum())


@settings(max_examples=30, deadline=None)
@given(
    blocks=st.integers(768, 1024),
    local=st.integers(8, 64),
    stride=st.integers(1, 16),
    offset=st.integers(0, 15),
)
def test_the_rule_has_the_patterns_causal_work(
    blocks: int, local: int, stride: int, offset: int
) -> None:
    pattern = s2.StridedPattern(num_heads=1, local_blocks=local, vert_stride=stride, block_size=64)
    alpha_tokens, beta = pattern.rule()
    exact = pattern_tiles(blocks, local, stride, offset)
    assert rule_tiles(blocks, alpha_tokens / 64 + beta * blocks) == pytest.approx(exact, rel=0.02)


def test_only_the_last_kv_heads_are_dense(rules: Any) -> None:
    heads = rules(num_dense_heads=2)
    assert [beta == 1 for beta in heads.beta[0]] == [False] * 4 + [True] * 4
    assert heads.alpha_tokens[0][4:] == [0] * 4
    assert len(set(heads.beta[0][:4])) == 1
    assert heads.beta[0] == heads.beta[1] == heads.beta[2]


def test_a_stride_of_one_is_dense(rules: Any) -> None:
    heads = rules(vert_stride=1, num_dense_heads=0)
    assert heads.beta == [[1] * 8] * 3
    assert heads.alpha_tokens == [[0] * 8] * 3


def test_kv_heads_default_to_heads(rules: Any) -> None:
    mha = GQA.model_copy(update={"kv_heads": 8})
    heads = rules(mha, num_kv_heads=None, num_dense_heads=3, layers=3)
    assert [beta == 1 for beta in heads.beta[2]] == [False] * 5 + [True] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_dense_heads": 5}, "num_dense_heads: 5 of 4 KV heads"),
        ({"vert_stride": 0}, "vert_stride"),
        ({"vert_stride": 2.5}, "vert_stride"),
        ({"local_blocks": -1}, "local_blocks"),
        ({"local_blocks": 10**30}, "local_blocks"),
        ({"block_size": None}, "block_size"),
        ({"strides": 3}, "strides"),
        ({"num_heads": 16}, r"3 x 16 \(layers x query heads\), but the model has 3 x 8"),
        ({"num_kv_heads": 2}, r"3 x 2 \(layers x KV heads\), but the model has 3 x 4"),
        ({"layers": 5}, r"5 x 8 \(layers x query heads\), but the model has 3 x 8"),
    ],
)
def test_bad_parameters(rules: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError, match=rf"pattern\.json: .*{message}"):
        rules(**changes)


@pytest.mark.parametrize("text", ["", "[]", '{"num_heads": 8', '{"num_heads": 8}'])
def test_broken_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pattern.json"
    path.write_text(text)
    with pytest.raises(ProfileError, match=r"pattern\.json: "):
        s2.read(path, "x", GQA)


def test_the_selection_is_the_pattern(tmp_path: Path) -> None:
    path = tmp_path / "pattern.json"
    path.write_text(json.dumps(PATTERN))
    assert s2.read(path, "x", GQA).selection == Strided(
        block_tokens=64, local_blocks=4, vert_stride=4, dense_kv_heads=1
    )


def test_the_source_names_the_parameters(tmp_path: Path) -> None:
    path = tmp_path / "pattern.json"
    path.write_text(json.dumps(PATTERN))
    source = s2.read(path, "x", GQA).source
    for part in ("S2-Attention", "pattern.json", "local_blocks 4", "vert_stride 4", "64"):
        assert part in source
