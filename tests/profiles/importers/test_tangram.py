import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.architecture import Architecture
from profiles.errors import ProfileError
from profiles.heads import SamplesForm
from profiles.importers import tangram
from profiles.public_models import MODELS, resolve_architecture
from tests.profiles.published import published

TINY = Architecture(layers=2, query_heads=4, kv_heads=2, head_dim=64, hidden_size=256)
SINK, WINDOW = 32, 4096


def arrays(**changes: Any) -> dict[str, Any]:
    """Three requests of a 2 x 2 model as TANGRAM writes them."""
    context = np.array([10_000, 20_000, 20_000])
    ratio = np.array([0.0, 0.1, 0.2, 0.5]).reshape(1, 1, 2, 2).repeat(3, axis=1)
    kept = (ratio * context[None, :, None, None] + SINK + WINDOW).astype(np.int32)
    rows = [[tokens, SINK, tokens + SINK, WINDOW] for tokens in context]
    meta = {"model_name": "tiny", "scorer": "snapkv", "dataset_mix": "kv:1,shot:2"}
    return {
        "raw_kept": kept,
        "raw_ratio": ratio,
        "sample_meta": np.array(rows, dtype=np.int32),
        "meta": encoded(meta),
    } | changes


def encoded(meta: Any) -> np.ndarray[Any, Any]:
    return np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "profile.npz"


def samples(path: Path, architecture: Architecture = TINY) -> SamplesForm:
    heads = tangram.read(path, "x", architecture).heads
    assert isinstance(heads, SamplesForm)
    return heads


def test_requests_in_order_with_their_tasks_and_contexts(path: Path) -> None:
    np.savez(path, **arrays())
    heads = samples(path)
    assert heads.task == ["kv", "shot", "shot"]
    assert heads.context_tokens == [10_032, 20_032, 20_032]
    assert heads.kept_tokens[1] == [[4128, 4128, 6128, 6128], [8128, 8128, 14128, 14128]]


@pytest.mark.parametrize(
    "file",
    [
        "keydiff__llama-3.1-8b-instruct__profile_perlayer.npz",
        "snapkv__llama-3.1-8b-instruct__profile_perlayer.npz",
        "snapkv__qwen3-4b-instruct-2507__profile_perlayer.npz",
    ],
)
def test_published_files(file: str) -> None:
    real = published("tangram", file)
    architecture = resolve_architecture(real)
    profile = tangram.read(real, "real", architecture)
    assert isinstance(profile.heads, SamplesForm)
    kept, contexts = np.array(profile.heads.kept_tokens), profile.heads.context_tokens
    assert kept.shape == (28, architecture.layers, 32)
    assert profile.heads.task == ["scbench_kv_short"] * 16 + ["scbench_many_shot"] * 12
    assert 14_633 < min(contexts) <= max(contexts) < 26_600
    assert kept.min() >= SINK + WINDOW
    with np.load(real) as archive:
        assert (kept[..., ::4] == archive["raw_kept"][0]).all()
    assert "TANGRAM" in profile.source
    assert file in profile.source


def test_another_models_file_is_refused() -> None:
    real = published("tangram", "snapkv__qwen3-4b-instruct-2507__profile_perlayer.npz")
    with pytest.raises(ProfileError, match=r"36 x 8 \(layers x KV heads\), but .* 32 x 8"):
        tangram.read(real, "x", MODELS["Llama-3.1-8B"])


def one_wrong(field: str, value: float) -> np.ndarray[Any, Any]:
    changed: np.ndarray[Any, Any] = arrays()[field].astype(float)
    changed[0, 2, 1, 0] = value
    return changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"raw_kept": one_wrong("raw_kept", 5)},
            "request 2, layer 1, KV head 0: raw_kept 5 is not",
        ),
        ({"raw_ratio": one_wrong("raw_ratio", float("nan"))}, "request 2, layer 1, KV head 0"),
        ({"raw_kept": np.zeros((1, 3, 2, 3))}, r"raw_kept \(1, 3, 2, 3\)"),
        ({"raw_kept": np.zeros((2, 3, 2, 2)), "raw_ratio": np.zeros((2, 3, 2, 2))}, "raw_kept"),
        ({"raw_kept": np.zeros((3, 2, 2))}, "raw_kept must be numbers in 4 axes"),
        ({"sample_meta": np.zeros((3, 3))}, r"sample_meta \(3, 3\)"),
        ({"sample_meta": np.zeros((2, 4))}, r"sample_meta \(2, 4\)"),
        ({"sample_meta": np.array([["a"] * 4] * 3)}, "sample_meta must be numbers"),
        ({"meta": np.frombuffer(b'{"dataset', dtype=np.uint8)}, "meta: not valid JSON"),
        ({"meta": encoded([])}, "meta must be an object with a dataset_mix"),
        ({"meta": encoded({"dataset_mix": "kv:1,shot:9"})}, "does not add up to 3 requests"),
        ({"meta": encoded({"dataset_mix": "kv=3"})}, "must read 'task:count,task:count'"),
        ({"meta": encoded({"dataset_mix": "kv:-3"})}, "must read 'task:count,task:count'"),
        ({"raw_kept": np.array([None])}, "not a plain NPZ archive: Object arrays"),
    ],
)
def test_broken_figures(path: Path, changes: dict[str, Any], message: str) -> None:
    np.savez(path, **arrays(**changes))
    with pytest.raises(ProfileError, match=rf"profile\.npz: .*{message}"):
        samples(path)


@pytest.mark.parametrize("field", ["raw_kept", "raw_ratio", "sample_meta", "meta"])
def test_a_missing_array_is_named(path: Path, field: str) -> None:
    np.savez(path, **{key: value for key, value in arrays().items() if key != field})
    with pytest.raises(ProfileError, match=f"{field} is missing"):
        samples(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pickle.dumps({"raw_kept": 1})])
def test_what_is_no_archive(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ProfileError, match=r"profile\.npz: not a plain NPZ archive"):
        samples(path)


def test_a_single_array_and_an_absent_file(path: Path) -> None:
    with pytest.raises(ProfileError, match=r"profile\.npz: cannot be read: No such file"):
        samples(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ProfileError, match="is a single array"):
        samples(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_refused_or_harmless(tmp_path_factory: Any, data: st.DataObject) -> None:
    """A flipped byte either raises ProfileError or lies where it changes no figure."""
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    np.savez(path, **arrays())
    whole, content = samples(path), bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        read = samples(path)
    except ProfileError:
        return
    assert read == whole


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_truncations_are_refused(path: Path, share: float) -> None:
    np.savez(path, **arrays())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ProfileError, match=r"profile\.npz"):
        samples(path)


HYBRID = Architecture(
    layers=4,
    query_heads=4,
    kv_heads=2,
    head_dim=64,
    hidden_size=256,
    windows=(128, None, 128, None),
)


@pytest.mark.parametrize("listed", [[1, 3], [0, 2]])
def test_layers_that_have_no_samples_keep_their_windows(path: Path, listed: list[int]) -> None:
    """Whichever of the two kinds of layers the file lists, the model's windows tell them apart."""
    np.savez(path, **arrays(static_layer_ids=np.array(listed)))
    heads = samples(path, HYBRID)
    kept = np.array(heads.kept_tokens)
    assert (kept[:, [0, 2]] == 128).all()
    assert kept[1, 1].tolist() == [4128, 4128, 6128, 6128]
    assert kept[1, 3].tolist() == [8128, 8128, 14128, 14128]
    assert "2 layers keep windows" in tangram.read(path, "x", HYBRID).source


def test_sink_and_window_do_not_grow_with_the_context(path: Path) -> None:
    np.savez(path, **arrays(static_layer_ids=np.array([1, 3])))
    grown = samples(path, HYBRID).kept_at(50 * 20_032)
    assert (grown[:, [0, 2]] == 128).all()
    # Beyond the 4,128 tokens that every head keeps: 2,000 of 20,032.
    assert grown[1, 1] == pytest.approx([4128, 4128, 104_128, 104_128], rel=1e-9)
    own = samples(path, HYBRID).kept_at(20_032)[1]
    assert (own == samples(path, HYBRID).kept_tokens[1]).all()


def test_density_of_the_published_files_at_128k() -> None:
    """With the window scaled it was 0.30 for all three."""
    densities = {}
    for file in ("keydiff__llama-3.1-8b", "snapkv__llama-3.1-8b", "snapkv__qwen3-4b"):
        suffix = "-2507" if "qwen3" in file else ""
        real = published("tangram", f"{file}-instruct{suffix}__profile_perlayer.npz")
        kept = samples(real, resolve_architecture(real)).kept_at(131_072)
        densities[file] = kept.mean() / 131_072
    assert list(densities.values()) == pytest.approx([0.117, 0.117, 0.160], abs=5e-4)


def test_one_ranks_heads_stand_for_every_ranks(path: Path) -> None:
    meta = {"model_name": "tiny", "scorer": "snapkv", "dataset_mix": "kv:1,shot:2"}
    np.savez(path, **arrays(meta=encoded({**meta, "tensor_parallel_size": 2})))
    four = TINY.model_copy(update={"kv_heads": 4})
    assert samples(path, four).kept_tokens[1] == [[4128, 6128] * 2, [8128, 14128] * 2]
    with pytest.raises(ProfileError, match=r"2 x 4 \(layers x KV heads\), but .* 2 x 2"):
        samples(path)


@pytest.mark.parametrize(
    ("architecture", "listed", "message"),
    [
        (TINY.model_copy(update={"layers": 4}), [1, 3], r"config\.json with layer_types"),
        (HYBRID, [0, 1], r"\[0, 1\] are not the layers of full attention of the model, \[1, 3\]"),
        (HYBRID, [1, 9], "static_layer_ids must rise, within the model's 4 layers"),
        (HYBRID, [3, 1], "static_layer_ids must rise"),
        (HYBRID, [1], "samples of 2 layers, but static_layer_ids lists 1 of 4"),
        (HYBRID, [[1, 3]], "static_layer_ids must be numbers in 1 axes"),
    ],
)
def test_layers_that_do_not_fit_the_model(
    path: Path, architecture: Architecture, listed: Any, message: str
) -> None:
    np.savez(path, **arrays(static_layer_ids=np.array(listed)))
    with pytest.raises(ProfileError, match=message):
        samples(path, architecture)


@pytest.mark.parametrize("size", [0, 1.5, True, "2"])
def test_a_tensor_parallel_size_that_is_none(path: Path, size: Any) -> None:
    meta = {"dataset_mix": "kv:1,shot:2", "tensor_parallel_size": size}
    np.savez(path, **arrays(meta=encoded(meta)))
    with pytest.raises(ProfileError, match="tensor_parallel_size must be a positive whole number"):
        samples(path)
