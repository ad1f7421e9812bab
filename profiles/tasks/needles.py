"""Needles in a haystack: RULER's single, multi-key, multi-value and multi-query retrieval.

A needle is a key and its value side by side ("number Bako 417 ."), and a question is the needle
without its value, so that a model of a few layers can learn it and a large one needs no hint.
"""

from collections.abc import Callable
from random import Random

from profiles.tasks.example import Example, Question
from profiles.tasks.haystack import Noise, Text
from profiles.tasks.token_room import TokenRoom
from profiles.tasks.words import NAMES, NUMBERS, SYLLABLES

MULTI_KEYS = 4
VALUES = 4
QUERIES = 4


def single_noise(room: TokenRoom) -> Example:
    """NS1: one number hidden in repeated noise."""
    return hidden("niah_single_1", room, Noise(), keys=1, asked=1)


def single_text(room: TokenRoom) -> Example:
    """NS2: one number hidden in text."""
    return hidden("niah_single_2", room, Text(room.random, room.split), keys=1, asked=1)


def single_long_value(room: TokenRoom, keys: int = 1) -> Example:
    """NS3: a long value (RULER's UUID; here a number and two syllables) hidden in text."""
    names = room.random.sample(NAMES, keys)
    numbers = room.random.sample(NUMBERS, keys)
    values = [(number, *room.random.sample(SYLLABLES, 2)) for number in numbers]
    facts = [f"label {n} {' '.join(v)} ." for n, v in zip(names, values, strict=True)]
    questions = [Question(f"label {n}", v) for n, v in zip(names, values, strict=True)]
    return _in_text("niah_single_3", room, facts, questions)


def multi_key(room: TokenRoom) -> Example:
    """MK1: several keys hidden in text, one of them asked."""
    text = Text(room.random, room.split)
    return hidden("niah_multikey_1", room, text, keys=MULTI_KEYS, asked=1)


def multi_query(room: TokenRoom) -> Example:
    """MQ: several keys hidden in text, all of them asked."""
    text = Text(room.random, room.split)
    return hidden("niah_multiquery", room, text, keys=QUERIES, asked=QUERIES)


def every_line(room: TokenRoom, asked: int = 1) -> Example:
    """MK2: the haystack is needles and nothing else."""
    names = room.random.sample(NAMES, len(NAMES))
    values = [room.random.choice(NUMBERS) for _ in names]
    lines = {
        f"number {n} {v} .": Question(f"number {n}", (v,))
        for n, v in zip(names, values, strict=True)
    }
    return _all_needles("niah_multikey_2", room, lines, asked)


def every_line_codes(room: TokenRoom, asked: int = 1) -> Example:
    """MK3: keys and values of several words each; single words of keys are found many times.

    No two values begin with the same word.
    """
    numbers = room.random.sample(NUMBERS, len(NUMBERS))
    keys = _pairs(room.random, len(numbers))
    lines = {}
    for key, number in zip(keys, numbers, strict=True):
        value = (number, room.random.choice(SYLLABLES))
        lines[f"code {key} {' '.join(value)} ."] = Question(f"code {key}", value)
    return _all_needles("niah_multikey_3", room, lines, asked)


def multi_value(room: TokenRoom, keys: int = 1) -> Example:
    """MV: a key with several values, all of them asked, in any order."""
    numbers = room.random.sample(NUMBERS, keys * VALUES)
    facts, questions = [], []
    for index, key in enumerate(room.random.sample(NAMES, keys)):
        values = numbers[index * VALUES : (index + 1) * VALUES]
        facts += [f"number {key} {value} ." for value in values]
        questions.append(Question(f"all numbers {key}", tuple(values), ordered=False))
    return _in_text("niah_multivalue", room, facts, questions)


def hidden(task: str, room: TokenRoom, filler: Callable[[], str], keys: int, asked: int) -> Example:
    """`keys` numbers hidden between sentences of `filler`, `asked` of them asked."""
    names = room.random.sample(NAMES, keys)
    values = room.random.sample(NUMBERS, keys)
    facts = [f"number {n} {v} ." for n, v in zip(names, values, strict=True)]
    every = [Question(f"number {n}", (v,)) for n, v in zip(names, values, strict=True)]
    questions = room.random.sample(every, asked)
    pieces = room.spread(facts, filler, room.left_for_context(questions))
    return Example(task, " ".join(pieces), tuple(questions))


def _in_text(task: str, room: TokenRoom, facts: list[str], questions: list[Question]) -> Example:
    room.random.shuffle(facts)
    text = Text(room.random, room.split)
    pieces = room.spread(facts, text, room.left_for_context(questions))
    return Example(task, " ".join(pieces), tuple(questions))


def _all_needles(task: str, room: TokenRoom, lines: dict[str, Question], asked: int) -> Example:
    longest = max(lines.values(), key=lambda question: len(question.prompt))
    tokens = room.left_for_context([longest] * asked)
    left = iter(lines)
    pieces = room.fill(lambda: next(left, None), tokens)
    chosen = room.random.sample(pieces, min(asked, len(pieces)))
    return Example(task, " ".join(pieces), tuple(lines[line] for line in chosen))


def _pairs(random: Random, count: int) -> list[str]:
    every = len(SYLLABLES) ** 2
    return [
        f"{SYLLABLES[index // len(SYLLABLES)]} {SYLLABLES[index % len(SYLLABLES)]}"
        for index in random.sample(range(every), count)
    ]
