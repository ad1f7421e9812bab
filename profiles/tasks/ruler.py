"""RULER's thirteen task types (Hsieh et al. 2024, arXiv 2404.06654), by its names."""

from collections.abc import Callable
from random import Random

from profiles.errors import ProfileError
from profiles.tasks import aggregation, needles, question_answering, tracing
from profiles.tasks.example import Example
from profiles.tasks.haystack import Split
from profiles.tasks.token_room import Count, TokenRoom

Maker = Callable[[TokenRoom], Example]

TASKS: dict[str, Maker] = {
    "niah_single_1": needles.single_noise,
    "niah_single_2": needles.single_text,
    "niah_single_3": needles.single_long_value,
    "niah_multikey_1": needles.multi_key,
    "niah_multikey_2": needles.every_line,
    "niah_multikey_3": needles.every_line_codes,
    "niah_multivalue": needles.multi_value,
    "niah_multiquery": needles.multi_query,
    "vt": tracing.variable_tracking,
    "cwe": aggregation.common_words,
    "fwe": aggregation.frequent_words,
    "qa_1": question_answering.one_fact,
    "qa_2": question_answering.two_facts,
}
SHORTEST_TOKENS = 96


def make(task: str, tokens: int, seed: int, count: Count, split: Split = "held_out") -> Example:
    """One example of `task`, at most about `tokens` long as `count` counts them.

    Raises `ProfileError` for an unknown task or a context too short to hold one.
    """
    if task not in TASKS:
        raise ProfileError(f"task {task!r} is unknown; known are {', '.join(TASKS)}")
    if tokens < SHORTEST_TOKENS:
        raise ProfileError(f"a context of {tokens} tokens is too short: {SHORTEST_TOKENS} at least")
    room = TokenRoom(tokens, count, Random(f"{task}/{tokens}/{seed}/{split}"), split)
    return TASKS[task](room)
