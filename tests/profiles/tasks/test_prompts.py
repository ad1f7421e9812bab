import json
from pathlib import Path

import pytest

from profiles.errors import ProfileError
from profiles.tasks.example import Question
from profiles.tasks.prompts import Prompt, generated, read, write
from tests.profiles.cli.command import hplb, refused
from tests.profiles.published import case


def words(text: str) -> int:
    return len(text.split())


def test_prompts_survive_a_file(tmp_path: Path) -> None:
    prompts = generated(["vt", "cwe"], [128, 256], 2, 5, words, "held_out")
    prompts.append(Prompt(text="only a text"))
    write(tmp_path / "prompts.jsonl", prompts)
    assert read(tmp_path / "prompts.jsonl") == prompts
    assert [p.tokens for p in prompts] == [128] * 4 + [256] * 4 + [None]
    assert len({p.text for p in prompts}) == 9


def test_the_whole_prompt_holds_questions_and_answers() -> None:
    prompt = Prompt(text="a b .", questions=(Question("ask", ("x", "y")), Question("more", ("z",))))
    assert prompt.whole == "a b . ask x y . more z ."


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no prompts"),
        ("\n\n", "no prompts"),
        ('{"text": "a"}\n{"text": ""}', "line 2: text"),
        ('{"text": "a"', "line 1"),
        ('{"words": "a"}', "line 1: text"),
        ('{"text": "a", "tokens": -1}', "line 1: tokens"),
        ('{"text": "a", "extra": 1}', "line 1: extra"),
        ("[1, 2]", "line 1"),
        ('{"text": "a", "text": "b"}', "line 1: text: stands twice in one object"),
        ('{"text": "a"}\n{"text": "\\ud800"}', "line 2: text: holds half of a surrogate pair"),
        ('{"text": ' + "[" * 100_000, "line 1: not valid JSON: nested too deeply"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(content)
    with pytest.raises(ProfileError, match=says):
        read(path)


def test_lines_end_where_json_lines_end() -> None:
    found = read(case("line-separators.jsonl"))
    assert len(found) == 4
    assert any(mark in prompt.text for prompt in found for mark in "\u2028\u2029\x85")


def test_separators_marks_and_windows_line_ends(tmp_path: Path) -> None:
    texts = ["a\u2028b", "c\u2029d", "e\x85f", "g\x0bh\x0ci\x1cj"]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n\r\n").encode())
    assert [prompt.text for prompt in read(path)] == texts


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"none\.jsonl: cannot be read"):
        read(tmp_path / "none.jsonl")


@pytest.mark.parametrize("contexts", ["1k", "512,", "²"])
def test_contexts_that_are_no_numbers_are_refused(tmp_path: Path, contexts: str) -> None:
    out = tmp_path / "prompts.jsonl"
    result = hplb("prompts", "--model", tmp_path, "--contexts", contexts, "-o", out)
    assert "is not a list of whole numbers" in refused(result)
