"""Windows of held-out text."""

from pathlib import Path

import pytest

from executor.errors import EvaluationError
from executor.evaluation.texts import windows


class Tokenizer:
    """A token a letter, behind a 0."""

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, **_: object
    ) -> dict[str, list[int]]:
        return {"input_ids": [0] * add_special_tokens + [ord(letter) for letter in text]}


def test_every_document_has_its_first_window_before_any_has_its_second(tmp_path: Path) -> None:
    for name, text in {"a": "abcdefg", "b": "ij", "c": "klmno"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    found = windows(tmp_path, Tokenizer(), 3, 5)
    letters = ["".join(map(chr, window[1:])) for window in found]
    assert letters == ["ab", "ij", "kl", "cd", "mn"]
    assert all(window[0] == 0 for window in found)
    assert windows(tmp_path, Tokenizer(), 3, 2) == found[:2]
    with pytest.raises(EvaluationError, match="7 tokens are too few for a window of 9"):
        windows(tmp_path, Tokenizer(), 9, 1)
    with pytest.raises(EvaluationError, match=r"--text .*none: cannot be read"):
        windows(tmp_path / "none", Tokenizer(), 3, 1)
