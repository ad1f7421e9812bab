"""Filling a context to a length in tokens, with the facts spread at random places."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from profiles.tasks.example import Question
from profiles.tasks.haystack import Split

Count = Callable[[str], int]
MARGIN_TOKENS = 8


@dataclass(frozen=True, slots=True)
class TokenRoom:
    """`tokens` for context, questions and answers together, as `count` counts them.

    Text comes from the sentences of `split`.
    """

    tokens: int
    count: Count
    random: Random
    split: Split

    def left_for_context(self, questions: list[Question]) -> int:
        """Tokens the context may have beside these questions."""
        asked = sum(self.count(f"{q.prompt} {' '.join(q.answers)} .") for q in questions)
        return self.tokens - asked - MARGIN_TOKENS

    def spread(self, facts: list[str], filler: Callable[[], str], tokens: int) -> list[str]:
        """`facts` in their order, between sentences of `filler`, together at most `tokens`."""
        left = tokens - sum(self.count(fact) for fact in facts)
        around: list[str] = []
        while (sentence := filler()) and (left := left - self.count(sentence)) >= 0:
            around.append(sentence)
        places = sorted(self.random.randint(0, len(around)) for _ in facts)
        pieces: list[str] = []
        start = 0
        for fact, place in zip(facts, places, strict=True):
            pieces += [*around[start:place], fact]
            start = place
        return [*pieces, *around[start:]]

    def fill(self, fact: Callable[[], str | None], tokens: int) -> list[str]:
        """As many facts as fit `tokens`, or as there are: `fact` returns None at the end."""
        pieces: list[str] = []
        while (piece := fact()) is not None and (tokens := tokens - self.count(piece)) >= 0:
            pieces.append(piece)
        return pieces
