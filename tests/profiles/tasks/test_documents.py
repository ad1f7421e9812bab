"""Prompts as people have them: what is taken for one, and what is refused."""

from pathlib import Path

import pytest

from profiles.errors import ProfileError
from profiles.tasks.documents import digest_at, prompts_at
from profiles.tasks.prompts import Prompt, write


def test_lines_are_known_by_their_name_or_by_their_first(tmp_path: Path) -> None:
    prompts = [Prompt(text="one", task="a"), Prompt(text="two")]
    for name in ("p.jsonl", "p.txt", "p"):
        write(tmp_path / name, prompts)
        assert prompts_at(tmp_path / name) == prompts
    (tmp_path / "broken.jsonl").write_text("a plain text\n")
    with pytest.raises(ProfileError, match=r"broken\.jsonl: line 1"):
        prompts_at(tmp_path / "broken.jsonl")


@pytest.mark.parametrize("content", ["{ not json }\n", "{\n}\n", "[1, 2]\n", "12\n", "a\n\nb"])
def test_any_other_file_is_one_text(tmp_path: Path, content: str) -> None:
    (tmp_path / "text.md").write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert prompts_at(tmp_path / "text.md") == [Prompt(text=content.strip())]


def test_a_folder_is_read_whole_in_the_order_of_names(tmp_path: Path) -> None:
    for name, content in {
        "b.txt": "second",
        "a.txt": "first",
        "code/deep/x.py": "x = 1",
        "code/y.py": "y = 2",
        "code/__init__.py": "\n",
        ".hidden/z.txt": "no",
        ".z": "no",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    write(tmp_path / "c.jsonl", [Prompt(text="third", task="made", tokens=64)])
    found = [(prompt.task, prompt.text) for prompt in prompts_at(tmp_path)]
    assert found == [
        ("text", "first"),
        ("text", "second"),
        ("made", "third"),
        ("code", "x = 1"),
        ("code", "y = 2"),
    ]
    before = digest_at(tmp_path)
    (tmp_path / ".z").write_text("still no")
    assert digest_at(tmp_path) == before
    (tmp_path / "a.txt").rename(tmp_path / "aa.txt")
    assert digest_at(tmp_path) != before


def test_what_is_no_prompt_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no prompts: neither"):
        prompts_at(tmp_path)
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(ProfileError, match=r"empty\.txt: no prompts"):
        prompts_at(tmp_path / "empty.txt")
    (tmp_path / "picture").write_bytes(b"\x89PNG\xff")
    with pytest.raises(ProfileError, match=r"picture: is not UTF-8 text: byte 0"):
        prompts_at(tmp_path)
    with pytest.raises(ProfileError, match="none: cannot be read: No such file"):
        prompts_at(tmp_path / "none")
