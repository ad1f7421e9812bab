"""`measure`, as a notebook calls it."""

from pathlib import Path

import pytest

from profiles import measure
from profiles.errors import MeasuringError
from profiles.selection import SAMPLED, Sampled, SinkLocal

from . import tiny


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("measuring")
    return {
        "model": tiny.model(folder / "llama"),
        "data": tiny.prompts(folder / "data.jsonl", {"one": [80, 70]}),
        "contexts": [64],
        "block_tokens": 16,
        "rows": 8,
    }


def test_the_same_call_goes_on_from_its_state(asked: dict, tmp_path: Path) -> None:
    first = measure(**asked, state=tmp_path / "state")
    parts = {part: part.stat().st_mtime_ns for part in (tmp_path / "state").glob("*.npz")}
    assert len(parts) == 2
    assert measure(**asked, state=str(tmp_path / "state")) == first
    assert parts == {part: part.stat().st_mtime_ns for part in parts}
    with pytest.raises(MeasuringError, match="another measurement"):
        measure(**asked, state=tmp_path / "state", seed=1)


def test_without_a_state_nothing_is_kept(
    asked: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert measure(**asked).heads == measure(**asked, state=tmp_path / "state").heads
    assert [found.name for found in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize(
    ("selection", "measured"),
    [
        ("sampled", SAMPLED),
        (Sampled(rows=5), Sampled(rows=5)),
        ("sink_local", SinkLocal(sink_tokens=16)),
    ],
)
def test_a_selection_by_its_kind_or_in_detail(
    asked: dict, selection: object, measured: object
) -> None:
    assert measure(**asked, selection=selection).selection == measured


def test_the_profile_is_named_after_the_model_unless_named(asked: dict) -> None:
    assert (measure(**asked).name, measure(**asked, name="mine").name) == ("llama", "mine")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"selection": "best"}, "selection: 'best' is not one of sampled, pooled"),
        ({"name": "no/name"}, "name: 'no/name' must be letters"),
        ({"dtype": "float8"}, "dtype: 'float8' is not one of"),
        ({"device": "tpu"}, "device: 'tpu' is not cpu"),
        ({"prompts": 0}, "prompts: 0 must be at least 1"),
        ({"threads": 0}, "threads: 0 must be at least 1"),
    ],
)
def test_choices_that_make_no_sense(asked: dict, more: dict, message: str) -> None:
    with pytest.raises(MeasuringError, match=message):
        measure(**asked, **more)


def test_without_an_executor_there_is_a_warning(
    asked: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profiles.measuring.selector.installed_selector", lambda: None)
    with pytest.warns(UserWarning, match="selected_recovery is left out"):
        profile = measure(**asked)
    assert profile.heads.selected_recovery is None
