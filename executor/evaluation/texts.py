"""Held-out text in windows of a context: what perplexity is measured on."""

from pathlib import Path
from typing import Any

from executor.errors import EvaluationError
from profiles.tasks.haystack import sentences

MOST_SCORED = 1024
"""Tokens of a window that are predicted, the last ones: they have most to attend to."""


def scored_tokens(context: int) -> int:
    """How many tokens of a window's end perplexity is the mean over."""
    return min(MOST_SCORED, context // 2)


def windows(path: Path | None, tokenizer: Any, context: int, most: int) -> list[tuple[int, ...]]:
    """Up to `most` windows of `context` tokens that do not overlap, each begun as a prompt is.

    Of the file, or of the standard library's docstrings that no training saw. Raises
    EvaluationError where the text is too short for one.
    """
    text = " ".join(sentences("held_out")) if path is None else _read(path)
    begun = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    size = context - len(begun)
    count = min(most, len(ids) // size)
    if not count:
        where = "the held-out text" if path is None else str(path)
        raise EvaluationError(
            f"{where}: {len(ids)} tokens are too few for a window of {context}; give a longer "
            "--text or a shorter context"
        )
    return [(*begun, *ids[n * size : (n + 1) * size]) for n in range(count)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"--text {path}: cannot be read: {error}") from None
