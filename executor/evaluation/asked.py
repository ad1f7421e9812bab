"""A sample as one sequence of tokens, and where in it the words of the answers are."""

from dataclasses import dataclass
from typing import Any

from executor.errors import EvaluationError
from profiles.tasks.example import Example


@dataclass(frozen=True, slots=True)
class Word:
    """An answer's word: tokens first..last - 1 of the sequence, of the question of this number."""

    question: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Asked:
    """Context, questions and answers as `ids`; `ordered` says of every question how it counts."""

    task: str
    seed: int
    ids: tuple[int, ...]
    words: tuple[Word, ...]
    ordered: tuple[bool, ...]

    @property
    def prompt_tokens(self) -> int:
        """Tokens before the first answer."""
        return self.words[0].first

    @property
    def places(self) -> tuple[int, ...]:
        """Tokens that are to be predicted, ascending."""
        return tuple(place for word in self.words for place in range(word.first, word.last))


def ask(sample: Example, seed: int, tokenizer: Any) -> Asked:
    """Tokenise a sample as `Prompt.whole` writes it, with the special tokens the tokenizer adds.

    Words are found by the tokens' character offsets, so that any fast tokenizer will do. Raises
    EvaluationError for one that knows no offsets.
    """
    pieces, spans = [sample.context], []
    length = len(sample.context)
    for number, question in enumerate(sample.questions):
        pieces.append(question.prompt)
        length += 1 + len(question.prompt)
        for answer in question.answers:
            pieces.append(answer)
            spans.append((number, length + 1, length + 1 + len(answer)))
            length += 1 + len(answer)
        pieces.append(".")
        length += 2
    if not getattr(tokenizer, "is_fast", False):
        raise EvaluationError(
            "the model's tokenizer knows no character offsets (it is no fast tokenizer), so that "
            "the answers' tokens cannot be found"
        )
    encoded = tokenizer(" ".join(pieces), return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    return Asked(
        sample.task,
        seed,
        tuple(ids),
        tuple(_word(number, start, end, offsets) for number, start, end in spans),
        tuple(question.ordered for question in sample.questions),
    )


def _word(number: int, start: int, end: int, offsets: list[tuple[int, int]]) -> Word:
    """The word whose characters are [start, end): the tokens that have any of them."""
    mine = [i for i, (begin, stop) in enumerate(offsets) if begin < end and stop > start]
    return Word(number, mine[0], mine[-1] + 1)
