"""Held-out text in windows of a context: what perplexity is measured on."""

from pathlib import Path
from typing import Any

from executor.errors import EvaluationError
from profiles.errors import ProfileError
from profiles.tasks.beginning import beginning
from profiles.tasks.documents import prompts_at
from profiles.tasks.haystack import sentences

MOST_SCORED = 1024
"""Tokens of a window that are predicted, the last ones: they have most to attend to."""


def scored_tokens(context: int) -> int:
    """How many tokens of a window's end perplexity is the mean over."""
    return min(MOST_SCORED, context // 2)


def windows(
    path: Path | None, tokenizer: Any, context: int, most: int | None, flag: str = "--text"
) -> list[tuple[int, ...]]:
    """Up to `most` windows of `context` tokens that do not overlap, each begun as a prompt is.

    All of them for None. Of the file or of a folder's files, the first window of each before the
    second of any; or of the standard library's docstrings that no training saw. Raises
    EvaluationError where no text is long enough for one; it names the `flag` that asked.
    """
    begun = beginning(tokenizer)
    size = context - len(begun)
    found: list[tuple[int, int, tuple[int, ...]]] = []
    longest = 0
    for number, text in enumerate(_texts(path, flag)):
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        longest = max(longest, len(ids))
        for n in range(len(ids) // size)[:most]:
            found.append((n, number, (*begun, *ids[n * size : (n + 1) * size])))
    if not found:
        where = "the held-out text" if path is None else str(path)
        raise EvaluationError(
            f"{where}: {longest} tokens are too few for a window of {context}; give a longer "
            f"{flag} or a shorter context"
        )
    return [window for _, _, window in sorted(found)[:most]]


def _texts(path: Path | None, flag: str) -> list[str]:
    if path is None:
        return [" ".join(sentences("held_out"))]
    try:
        return [prompt.whole for prompt in prompts_at(path)]
    except ProfileError as error:
        raise EvaluationError(f"{flag} {error}") from None
