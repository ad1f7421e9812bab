"""Every task's answers can be found by reading its context, which is how they are checked here."""

import re
from collections import Counter

import pytest

from profiles.errors import ProfileError
from profiles.tasks.example import Example
from profiles.tasks.haystack import sentences
from profiles.tasks.ruler import SHORTEST_TOKENS, TASKS, make
from profiles.tasks.words import NAMES, NUMBERS, SYLLABLES

LENGTHS = (SHORTEST_TOKENS, 257, 1024)


def words(text: str) -> int:
    return len(text.split())


def lines(example: Example, pattern: str) -> list[tuple[str, ...]]:
    return re.findall(pattern, example.context)


def found(example: Example, prompt: str) -> set[tuple[str, ...]]:
    """The answers a careful reader gives, from the words of the context alone."""
    asked = prompt.split()
    match example.task:
        case "niah_single_3":
            return set(lines(example, rf"label {asked[1]} (\S+) (\S+) (\S+) \."))
        case "niah_multikey_3":
            return set(lines(example, rf"code {asked[1]} {asked[2]} (\S+) (\S+) \."))
        case "niah_multivalue":
            return {tuple(sorted(lines(example, rf"number {asked[2]} (\S+) \.")))}
        case "vt":
            handed_on = dict(lines(example, r"let (\S+) (\S+) \."))
            return {tuple(sorted(_chain(handed_on, asked[1])))}
        case "cwe":
            return {tuple(sorted(w for w, _ in Counter(example.context.split()).most_common(10)))}
        case "fwe":
            return {tuple(sorted(w for w, _ in Counter(example.context.split()).most_common(3)))}
        case "qa_1":
            return {(home,) for home in lines(example, rf"lives {asked[1]} (\S+) \.")}
        case "qa_2":
            (partner,) = lines(example, rf"partner {asked[2]} (\S+) \.")
            return {(home,) for home in lines(example, rf"lives {partner} (\S+) \.")}
    return {(value,) for value in lines(example, rf"number {asked[1]} (\S+) \.")}


def _chain(handed_on: dict[str, str], start: str) -> list[str]:
    holders = []
    while start in handed_on:
        start = handed_on[start]
        holders.append(start)
    return holders


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("task", TASKS)
def test_the_answer_is_in_the_context_and_nowhere_else(task: str, tokens: int) -> None:
    for seed in range(5):
        example = make(task, tokens, seed, words)
        assert example.questions
        for question in example.questions:
            answers = question.answers if question.ordered else tuple(sorted(question.answers))
            assert found(example, question.prompt) == {answers}


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("task", TASKS)
def test_contexts_are_filled_and_never_overflow(task: str, tokens: int) -> None:
    for seed in range(5):
        example = make(task, tokens, seed, words)
        asked = sum(words(f"{q.prompt} {' '.join(q.answers)} .") for q in example.questions)
        total = words(example.context) + asked
        assert total <= tokens
        # Where all 512 names or numbers are used up, a context may stay short.
        full = task in ("niah_multikey_2", "niah_multikey_3", "qa_1", "qa_2") and tokens > 2000
        assert full or total >= 0.5 * tokens


def test_seeds_tasks_and_splits_differ_and_repeat() -> None:
    for task in TASKS:
        assert make(task, 200, 1, words) == make(task, 200, 1, words)
        assert make(task, 200, 1, words) != make(task, 200, 2, words)
    text = {s: make("niah_single_2", 200, 1, words, s).context for s in ("train", "held_out")}
    assert text["train"] != text["held_out"]


def test_needles_lie_anywhere() -> None:
    """A needle's place is spread over the context, not bound to its beginning or end."""
    places = []
    for seed in range(60):
        example = make("niah_single_1", 400, seed, words)
        before = example.context.split(" number ")[0]
        places.append(words(before) / words(example.context))
    assert min(places) < 0.15
    assert max(places) > 0.85
    assert 0.35 < sum(places) / len(places) < 0.65


def test_held_out_text_is_not_in_the_training_text() -> None:
    shared = set(sentences("train")) & set(sentences("held_out"))
    # Standard phrases ("return nothing .") occur in many modules.
    assert len(shared) < 0.1 * len(sentences("held_out"))
    assert len(sentences("held_out")) > 500


def test_words_of_tasks_do_not_occur_in_text() -> None:
    text = " ".join(sentences("train")).split()
    assert not set(text) & {*NAMES, *SYLLABLES, *NUMBERS}


@pytest.mark.parametrize(
    ("task", "tokens", "says"),
    [("needles", 200, "task 'needles' is unknown"), ("vt", SHORTEST_TOKENS - 1, "too short")],
)
def test_what_cannot_be_made_is_said(task: str, tokens: int, says: str) -> None:
    with pytest.raises(ProfileError, match=says):
        make(task, tokens, 0, words)
