"""JSON that can be read in one way only, and the files it comes in."""

from pathlib import Path
from typing import Any

import pytest

from profiles.errors import ProfileError
from profiles.files import read_json, read_text
from profiles.model import ModelProfile
from profiles.strict_json import JsonError, parse_json


@pytest.mark.parametrize("content", ['\ufeff{"a": "\u2028"}', b'\xef\xbb\xbf{"a": "\xe2\x80\xa8"}'])
def test_a_byte_order_mark_is_dropped(content: Any) -> None:
    assert parse_json(content) == {"a": "\u2028"}


@pytest.mark.parametrize(
    ("content", "says", "field"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "c: stands twice in one object", "c"),
        ('{"a": ["x", "\\ud800"]}', "a.1: holds half of a surrogate pair", "a.1"),
        ('"\\uDFFF"', "holds half of a surrogate pair", ""),
        ('"\udc80"', "holds half of a surrogate pair", ""),
        ('{"a": {"\\ud800": 1}}', "a: a key holds half", "a"),
        ("[" * 100_000, "not valid JSON: nested too deeply", ""),
        ("", "not valid JSON: Expecting value: line 1 column 1", ""),
        (b"\xff", "not valid JSON: not UTF-8: byte 0", ""),
    ],
)
def test_what_is_refused(content: Any, says: str, field: str) -> None:
    with pytest.raises(JsonError, match=says) as caught:
        parse_json(content)
    assert caught.value.field == field


def test_whole_surrogate_pairs_are_characters() -> None:
    assert parse_json('"\\ud83d\\ude00"') == "\U0001f600"


def test_files_name_themselves(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text('{"name": "a", "name": "b"}')
    for read in (read_json, ModelProfile.load):
        with pytest.raises(ProfileError, match=r"some\.json: name: stands twice in one object"):
            read(path)


def test_text_has_plain_line_ends_and_no_mark(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_bytes("\ufeffone\r\ntwo\u2028\x85three\n".encode())
    assert read_text(path) == "one\ntwo\u2028\x85three\n"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(ProfileError, match=r"some\.txt: is not UTF-8 text: byte 3"):
        read_text(path)
