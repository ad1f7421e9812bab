"""Prompts as the model's tokens, at the contexts they can be measured at."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from profiles.errors import MeasuringError
from profiles.measuring.choices import Choices
from profiles.tasks.beginning import beginning, cut
from profiles.tasks.prompts import Prompt

LEAST_SHARE = 0.75
"""How much of its context a prompt made for one must fill with this model's tokens."""


@dataclass(frozen=True)
class Item:
    """A prompt at one context. `number` counts the file's prompts from 0.

    `tokens` are at most `context_tokens`; `answers` are the places in them that the loss is taken
    at, all but the first where the prompt asks nothing.
    """

    number: int
    task: str
    context_tokens: int
    tokens: tuple[int, ...]
    answers: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.context_tokens}-{self.number}"


def items(prompts: list[Prompt], tokenizer: Any, choices: Choices) -> list[Item]:
    """Every (prompt, context) to measure, the shortest context first.

    A prompt that was made for a context is measured there if it fills LEAST_SHARE of it; any other
    at each context that it is long enough for. What is too long is cut at its beginning, behind
    what the tokenizer itself begins with. Raises MeasuringError for a context without prompts.
    """
    encoded = [_encode(prompt, tokenizer) for prompt in prompts]
    begun = beginning(tokenizer)
    found = []
    for context in choices.contexts:
        taken: Counter[str] = Counter()
        longest = 0
        for number, (prompt, (tokens, answers)) in enumerate(zip(prompts, encoded, strict=True)):
            made_for = context if prompt.tokens is None else prompt.tokens
            least = context if prompt.tokens is None else LEAST_SHARE * context
            if made_for != context:
                continue
            longest = max(longest, len(tokens))
            full = choices.prompts is not None and taken[prompt.task] >= choices.prompts
            if len(tokens) < least or len(tokens) < choices.rows or full:
                continue
            taken[prompt.task] += 1
            found.append(_cut(number, prompt.task, context, tokens, answers, begun))
        if not taken:
            raise MeasuringError(
                f"{choices.data}: no prompt for a context of {context} tokens: the longest that "
                f"could serve it has {longest} of this model's tokens"
            )
    return found


def _encode(prompt: Prompt, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Tokens of the whole prompt, and the places of its answers' tokens."""
    if not prompt.questions:
        tokens = list(tokenizer(prompt.whole, verbose=False)["input_ids"])
        return tokens, list(range(1, len(tokens)))
    encoded = tokenizer(prompt.whole, verbose=False, return_offsets_mapping=True)
    spans = _answer_spans(prompt)
    inside = [
        place
        for place, (begin, end) in enumerate(encoded["offset_mapping"])
        if begin < end and any(begin < last and end > first for first, last in spans)
    ]
    return list(encoded["input_ids"]), inside


def _answer_spans(prompt: Prompt) -> list[tuple[int, int]]:
    """Where the answers stand in `prompt.whole`, in characters."""
    spans, cursor = [], len(prompt.text)
    for question in prompt.questions:
        first = cursor + len(f" {question.prompt} ")
        last = first + len(" ".join(question.answers))
        spans.append((first, last))
        cursor = last + len(" .")
    return spans


def _cut(
    number: int, task: str, context: int, tokens: list[int], answers: list[int], begun: list[int]
) -> Item:
    lost = max(0, len(tokens) - context)
    # A first token has none before it to be predicted from, and nothing predicts the beginning.
    places = [place - lost for place in answers if place - lost >= max(1, len(begun))]
    return Item(number, task, context, tuple(cut(tokens, context, begun)), tuple(places))
