import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.errors import ProfileError
from profiles.files import write_atomically
from profiles.model import ModelProfile
from tests.profiles.test_heads import CURVES

PROFILE: dict[str, Any] = {
    "name": "tiny",
    "architecture": {
        "layers": 1,
        "query_heads": 2,
        "kv_heads": 1,
        "head_dim": 64,
        "hidden_size": 128,
    },
    "heads": {"form": "budgets", "tokens": [[64, 128]]},
    "source": "made for a test",
    "synthetic": True,
}


def parse(**changes: Any) -> ModelProfile:
    return ModelProfile.parse(json.dumps(PROFILE | changes), "here.json")


def test_saved_and_loaded_profiles_are_equal(tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    parse().save(path)
    assert ModelProfile.load(path) == parse()
    assert ModelProfile.load(path).digest == parse().digest
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.json"]


def test_older_profiles_keep_their_influence_and_digest() -> None:
    """Digest computed when it was still measured."""
    older = parse(heads={"form": "recovery_curves", **CURVES, "influence": [[0.5, 0.0]]})
    assert older.model_dump(mode="json")["heads"]["influence"] == [[0.5, 0.0]]
    assert older.digest == "19b383fe0de98ab72e931bd4953f2d860ca9964667d118fa67a9585fa4f135b3"


def test_a_copy_with_other_content_remembers_nothing_of_this_one() -> None:
    known = parse()
    assert known.text == known.model_dump_json()
    other = known.model_copy(update={"source": "elsewhere"})
    assert other.text == other.model_dump_json() != known.text
    assert other.digest != known.digest


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"synthetic": False},
        {"heads": {"form": "budgets", "tokens": [[64, 129]]}},
        {"architecture": PROFILE["architecture"] | {"dtype": "float16"}},
    ],
)
def test_digest_follows_the_content(changes: dict[str, Any]) -> None:
    assert parse(**changes).digest != parse().digest


def test_figures_must_fit_the_architecture() -> None:
    with pytest.raises(ProfileError, match=r"here\.json: .*1 layers x 3 query heads, .* has 1 x 2"):
        parse(heads={"form": "budgets", "tokens": [[64, 128, 192]]})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "../etc/passwd"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"source": ""}, "source"),
        ({"schema_version": 2}, "schema_version"),
        ({"heads": {"form": "entrails"}}, "heads"),
        ({"extra": 1}, "extra"),
    ],
)
def test_wrong_fields_are_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ProfileError, match=f"^here.json: {field}"):
        parse(**changes)


def test_infinity_in_json_is_placed() -> None:
    text = json.dumps(PROFILE).replace("128]]", "Infinity]]")
    with pytest.raises(ProfileError, match="tokens: layer 0, head 1"):
        ModelProfile.parse(text, "here.json")


@given(st.integers(0, len(json.dumps(PROFILE)) - 1))
def test_every_truncation_is_refused(length: int) -> None:
    with pytest.raises(ProfileError, match=r"^here\.json: "):
        ModelProfile.parse(json.dumps(PROFILE)[:length], "here.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"none\.json: cannot be read: No such file"):
        ModelProfile.load(tmp_path / "none.json")


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \udcff")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"x\.json: cannot be written"):
        parse().save(tmp_path / "absent" / "x.json")


def test_writing_follows_a_link_and_leaves_a_pipe_a_pipe(tmp_path: Path) -> None:
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    target.write_text("old")
    link.symlink_to(target)
    write_atomically(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(pipe, "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert pipe.is_fifo()
