from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.architecture import Architecture
from profiles.errors import ProfileError
from profiles.heads import RulesForm
from profiles.importers import duo_attention
from profiles.public_models import MODELS
from profiles.selection import SinkLocal
from tests.profiles.published import published

GQA = Architecture(layers=2, query_heads=4, kv_heads=2, head_dim=64, hidden_size=256)
MHA = Architecture(layers=2, query_heads=2, kv_heads=2, head_dim=64, hidden_size=128)
GATES = "0.9\t-0.001\n0.5\t1.2\n"


def rules(path: Path, architecture: Architecture, **options: Any) -> RulesForm:
    heads = duo_attention.read(path, "x", architecture, **options).heads
    assert isinstance(heads, RulesForm)
    return heads


@pytest.fixture
def gates(tmp_path: Path) -> Path:
    path = tmp_path / "gates.tsv"
    path.write_text(GATES)
    return path


def test_a_group_shares_its_kv_heads_rule(gates: Path) -> None:
    heads = rules(gates, GQA, threshold=0.5)
    assert heads.beta == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert heads.alpha_tokens == [[0, 0, 384, 384], [0, 0, 0, 0]]


def test_blocks_are_the_sink_and_the_nearest(gates: Path) -> None:
    profile = duo_attention.read(gates, "x", GQA)
    assert profile.selection == SinkLocal(sink_tokens=128)
    stated = duo_attention.read(gates, "x", GQA, sink_tokens=64)
    assert stated.selection == SinkLocal(sink_tokens=64)
    with pytest.raises(ProfileError, match="sink_tokens"):
        duo_attention.read(gates, "x", GQA, sink_tokens=2**31 + 1)


def test_gates_are_clipped_before_the_threshold(gates: Path) -> None:
    assert np.all(rules(gates, GQA, threshold=0).beta)
    assert rules(gates, MHA, threshold=1).beta == [[0, 0], [0, 1]]


def test_the_default_share_follows_the_kind_of_attention(gates: Path) -> None:
    assert np.mean(rules(gates, GQA).beta) == 0.5
    assert rules(gates, MHA).beta == [[0, 0], [0, 1]]


def test_sink_and_recent_make_the_streaming_span(gates: Path) -> None:
    heads = rules(gates, MHA, full_share=0, sink_tokens=64, recent_tokens=1000)
    assert heads.alpha_tokens == [[1064, 1064], [1064, 1064]]


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_keeps_every_full_head(
    tmp_path_factory: Any, first: float, second: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "gates.tsv"
    path.write_text("0.5\t0.5\t0.1\t0.9\n" * 3)
    shape = Architecture(layers=3, query_heads=4, kv_heads=4, head_dim=64, hidden_size=256)
    few, many = (
        np.array(rules(path, shape, full_share=share).beta) for share in sorted((first, second))
    )
    assert (few <= many).all()
    assert few.sum() == round(min(first, second) * 12)


@pytest.mark.parametrize(
    ("file", "model", "devices", "idle"),
    [
        ("Llama-2-7B-32K-Instruct.tsv", "Llama-2-7B", 8, 0.39),
        ("Meta-Llama-3.1-8B-Instruct.tsv", "Llama-3.1-8B", 4, 0.35),
        ("Meta-Llama-3.1-8B-Instruct.tsv", "Llama-3.1-8B", 8, 0.49),
    ],
)
def test_published_files_leave_contiguous_devices_idle(
    file: str, model: str, devices: int, idle: float
) -> None:
    """Worked out by hand: half of the heads full, the rest 1,024 tokens."""
    path, context = published("duo-attention", file), 131_072
    heads = rules(path, MODELS[model], full_share=0.5, sink_tokens=128, recent_tokens=896)
    budgets = np.array(heads.alpha_tokens) + np.array(heads.beta) * context
    work = budgets * context - budgets**2 / 2
    loads = work.reshape(len(work), devices, -1).sum(axis=-1)
    assert 1 - loads.mean() / loads.max(axis=1).mean() == pytest.approx(idle, abs=0.006)


def test_the_source_names_format_file_and_parameters(gates: Path) -> None:
    source = duo_attention.read(gates, "x", GQA, threshold=0.25).source
    for part in ("DuoAttention", "gates.tsv", "threshold 0.25", "sink 128", "recent 256"):
        assert part in source


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.5, "full_share": 0.5}, "threshold and full_share: give one"),
        ({"threshold": float("nan")}, "threshold: must be from 0 to 1"),
        ({"full_share": 1.5}, "full_share: must be from 0 to 1"),
        ({"sink_tokens": -1}, "sink must be at least 0"),
        ({"recent_tokens": 0}, "recent 1"),
        ({"recent_tokens": 10**12}, "alpha_tokens"),
    ],
)
def test_bad_options(gates: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        rules(gates, GQA, **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("0.9\t0.1\n0.5", "layer 1: 1 gates, but layer 0 has 2"),
        ("0.9\t0.1\n0.5\t", "layer 1, KV head 1: '' is not a number"),
        ("0.9\tnan\n0.5\t0.5", "layer 0, KV head 1: 'nan' is not finite"),
        ("0.9\t1e999\n0.5\t0.5", "layer 0, KV head 1: '1e999' is not finite"),
        ("0.9 0.1\n0.5 0.5", "layer 0, KV head 0: '0.9 0.1' is not a number"),
        ("0.9\t0.1\n", r"1 x 2 \(layers x KV heads\), but the model has 2 x 2"),
        ("\x00", "layer 0, KV head 0"),
    ],
)
def test_broken_files(gates: Path, text: str, message: str) -> None:
    gates.write_text(text, encoding="latin-1")
    with pytest.raises(ProfileError, match=rf"gates\.tsv: .*{message}"):
        rules(gates, GQA)


def test_a_byte_order_mark_and_windows_line_ends_are_no_gates(tmp_path: Path) -> None:
    path = tmp_path / "gates.tsv"
    path.write_bytes(b"\xef\xbb\xbf0.9\t0.1\r\n0.2\t0.8\r\n")
    tiny = Architecture(layers=2, query_heads=2, kv_heads=2, head_dim=64, hidden_size=128)
    marked = duo_attention.read(path, "x", tiny, threshold=0.5)
    path.write_bytes(b"0.9\t0.1\n0.2\t0.8\n")
    assert marked == duo_attention.read(path, "x", tiny, threshold=0.5)
    path.write_bytes(b"0.9\t\xff\n")
    with pytest.raises(ProfileError, match=r"gates\.tsv: is not UTF-8 text: byte 4"):
        duo_attention.read(path, "x", tiny, threshold=0.5)
