import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiles.architecture import Architecture
from profiles.errors import ProfileError
from profiles.heads import RulesForm
from profiles.importers import redknot
from profiles.public_models import MODELS
from profiles.selection import SinkLocal

TINY = Architecture(layers=2, query_heads=6, kv_heads=3, head_dim=64, hidden_size=256)
CLASSES = [["local", "global", "local_full"], ["retrieval", "dense", "streaming"]]
DISTANCES = [[3000, 0, 512], [-1, 77, 100]]
FILE = {
    "num_layers": 2,
    "num_kv_heads": 3,
    "sink_size": 8,
    "kv_head_classification": CLASSES,
    "kv_head_max_distance": DISTANCES,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "classes.json"


def rules(path: Path, content: Any, architecture: Architecture = TINY) -> RulesForm:
    path.write_text(json.dumps(content))
    heads = redknot.read(path, "x", architecture).heads
    assert isinstance(heads, RulesForm)
    return heads


def test_the_class_decides_and_not_the_distance(path: Path) -> None:
    """Each query head of a group by its KV head; whole heads have no span of their own."""
    heads = rules(path, FILE)
    assert heads.alpha_tokens == [[3008, 3008, 0, 0, 520, 520], [0, 0, 0, 0, 108, 108]]
    assert heads.beta == [[0, 0, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]]
    found = redknot.read(path, "x", TINY)
    assert found.selection == SinkLocal(sink_tokens=8)
    assert "3 of 6 KV heads local" in found.source


def test_sinks_and_sizes_that_are_not_stated(path: Path) -> None:
    least = {key: FILE[key] for key in ("kv_head_classification", "kv_head_max_distance")}
    assert rules(path, least).alpha_tokens[0][0] == 3004
    own = {**FILE, "kv_head_sink_size": [[4, 4, 16], [4, 4, 2]]}
    assert rules(path, own).alpha_tokens == [[3004, 3004, 0, 0, 528, 528], [0] * 4 + [102, 102]]
    assert redknot.read(path, "x", TINY).selection == SinkLocal(sink_tokens=16)


def test_a_dense_prefix_reads_everything(path: Path) -> None:
    heads = rules(path, {**FILE, "dense_prefix_layers": 1})
    assert (heads.alpha_tokens[0], heads.beta[0]) == ([0] * 6, [1] * 6)
    assert heads.beta[1] == [1, 1, 1, 1, 0, 0]


def test_a_published_file(path: Path) -> None:
    """What `mistral-7B_optimal_g15_lf_ret.json` says (RedKnot, 33183c5), but its rationale."""
    whole, local = 20, 12
    published = {
        "model": "Mistral-7B-Instruct-v0.3",
        "model_type": "mistral",
        "hf_repo": "mistralai/Mistral-7B-Instruct-v0.3",
        "method": "layer_hybrid",
        "rationale": "",
        "window": 4096,
        "sink_size": 4,
        "front_full_layers": 20,
        "num_layers": 32,
        "num_kv_heads": 8,
        "num_q_heads": 32,
        "summary": {"global": 160, "local": 96, "total": 256},
        "kv_head_classification": [["global"] * 8] * whole + [["local"] * 8] * local,
        "kv_head_max_distance": [[-1] * 8] * whole + [[4096] * 8] * local,
        "retrieval_top_p": 0.9,
        "dense_prefix_layers": 0,
    }
    mistral = Architecture(layers=32, query_heads=32, kv_heads=8, head_dim=128, hidden_size=4096)
    heads = rules(path, published, mistral)
    assert heads.alpha_tokens == [[0] * 32] * whole + [[4100] * 32] * local
    assert heads.beta == [[1] * 32] * whole + [[0] * 32] * local


def test_contiguous_heads_of_qwen3_32b(path: Path) -> None:
    """Made up of the published classes' counts: 48 local layers, then 5 or 4 whole KV heads of 8.

    On 2 devices at 131,072 tokens contiguous heads take 1.46 of the mean.
    """
    rows = [["local"] * 8] * 48
    rows += [["local"] * 3 + ["global"] * 5] * 13 + [["local"] * 4 + ["global"] * 4] * 3
    file = {"kv_head_classification": rows, "kv_head_max_distance": [[4096] * 8] * 64}
    heads, context = rules(path, file, MODELS["Qwen3-32B"]), 131_072
    tokens = np.array(heads.alpha_tokens) + np.array(heads.beta) * context
    pairs = tokens * context - tokens**2 / 2
    halves = pairs.reshape(64, 2, -1).sum(axis=2)
    assert halves.max(axis=1).sum() / halves.mean(axis=1).sum() == pytest.approx(1.46, abs=0.003)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mla_head_classification": [["dense"]]},
            r"mla_head_classification: classes of a model with multi-head latent attention \(MLA\)",
        ),
        ({"kv_head_classification": None}, "kv_head_classification must be a list of rows"),
        ({"kv_head_max_distance": [[1, 2, 3]]}, "kv_head_max_distance: 1 x 3, but .* has 2 x 3"),
        ({"kv_head_max_distance": [[1, 2, 3], [1]]}, "layer 1 must be a row of KV heads, as long"),
        ({"kv_head_sink_size": [[1]]}, "kv_head_sink_size: 1 x 1, but"),
        ({"num_layers": 3}, "num_layers and num_kv_heads: 3 x 3, but .* has 2 x 3"),
        (
            {"kv_head_classification": [["local", "global", "odd"], CLASSES[1]]},
            "layer 0, KV head 2: unknown class 'odd': known are dense, global, limited",
        ),
        ({"kv_head_max_distance": [[0, 0, 512], [-1, -1, 1]]}, "KV head 0: .* must be at least 1"),
        ({"kv_head_max_distance": [[-1, 0, 512], [-1, -1, 1]]}, "-1 is not a number of tokens"),
        ({"sink_size": True}, "layer 0, KV head 0: sink: True is not a number of tokens"),
        ({"dense_prefix_layers": "two"}, "dense_prefix_layers: 'two' is not a number"),
    ],
)
def test_broken_files(path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError, match=rf"classes\.json: .*{message}"):
        rules(path, {**FILE, **changes})


def test_another_models_file(path: Path) -> None:
    with pytest.raises(
        ProfileError, match=r"2 x 3 \(layers x KV heads\), but the model has 32 x 8"
    ):
        rules(path, FILE, MODELS["Llama-3.1-8B"])
    with pytest.raises(ProfileError, match="must be a JSON object"):
        rules(path, [])
