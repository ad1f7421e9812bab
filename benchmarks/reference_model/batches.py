"""Training batches: many questions a context, and a target at every place of a repetition."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from profiles.tasks import aggregation, needles, question_answering, tracing
from profiles.tasks.example import Example
from profiles.tasks.haystack import Noise, Text
from profiles.tasks.token_room import TokenRoom

TOKENS_A_STEP = 4096
TEXT_WEIGHT = 0.1
COPY, PAIRS = "copy", "pairs"
PAIRS_AT_ONCE = 8
SHORTEST_PERIOD = 3
WORDS_SEED = 0
FOLLOWED = "vt"
"""Its answers lead from one to the next; other answers in any order are learnt in any."""
OF_TEXT = {"niah_multiquery", "niah_single_2", "niah_single_3", "niah_multivalue"}


def _many(room: TokenRoom) -> int:
    """Questions asked of one context: many to learn from, or few, that the context be full."""
    return max(6, min(128, room.tokens // room.random.choice((12, 48, 200))))


def _few(tokens: int) -> int:
    return max(1, min(8, tokens // 100))


def _in_text(kind: str, room: TokenRoom, keys: int) -> Example:
    return needles.hidden(kind, room, Text(room.random, room.split), keys=keys, asked=keys)


MAKERS: dict[str, Callable[[TokenRoom], Example]] = {
    "niah_multikey_2": lambda r: needles.every_line(r, asked=_many(r)),
    "niah_multikey_3": lambda r: needles.every_line_codes(r, asked=_many(r)),
    "niah_multiquery": lambda r: _in_text("niah_multiquery", r, _many(r) // 2),
    "niah_single_1": lambda r: needles.hidden(
        "niah_single_1", r, Noise(), keys=_few(r.tokens), asked=_few(r.tokens)
    ),
    "niah_single_2": lambda r: _in_text("niah_single_2", r, r.random.randint(1, 4)),
    "niah_single_3": lambda r: needles.single_long_value(r, keys=_few(r.tokens)),
    "niah_multivalue": lambda r: needles.multi_value(r, keys=2 * _few(r.tokens)),
    "vt": lambda r: tracing.variable_tracking(r, chains=_few(r.tokens)),
    "cwe": lambda r: aggregation.common_words(r),
    "fwe": lambda r: aggregation.frequent_words(r),
    "qa_1": lambda r: question_answering.one_fact(r, asked=_many(r) // 2),
    "qa_2": lambda r: question_answering.two_facts(r, asked=_many(r) // 2),
}


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens` [B, N]; `weight` [B, N]: how much predicting the token at n counts (0: not)."""

    tokens: Tensor
    weight: Tensor
    kinds: list[str]


class Batches:
    """An endless, seeded supply of batches of one length."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self._encode = tokenizer.backend_tokenizer.encode
        self._random = Random(seed)
        self._pad, self._bos = tokenizer.pad_token_id, tokenizer.bos_token_id
        self._words = [i for w, i in tokenizer.get_vocab().items() if not w.startswith(("[", "##"))]
        self._words.sort()
        Random(WORDS_SEED).shuffle(self._words)
        self._counted: dict[str, int] = {}

    @property
    def words(self) -> int:
        return len(self._words)

    def draw(self, length: int, shares: dict[str, float], words: int, period: int) -> Batch:
        """Rows of `length`; copies and pairs use so many `words` and periods up to `period`."""
        rows = max(1, TOKENS_A_STEP // length)
        kinds = self._random.choices(list(shares), list(shares.values()), k=rows)
        tokens = torch.full((rows, length), self._pad)
        weight = torch.zeros(rows, length)
        for row, kind in enumerate(kinds):
            if kind == COPY:
                ids, weights = self._copy(length, self._words[:words], period)
            elif kind == PAIRS:
                ids, weights = self._pairs(length, self._words[:words])
            else:
                ids, weights = self._task(kind, length)
            n = min(length, len(ids))
            tokens[row, :n] = torch.tensor(ids[:n])
            weight[row, :n] = torch.tensor(weights[:n])
        return Batch(tokens, weight, kinds)

    def _copy(self, length: int, words: list[int], longest: int) -> tuple[list[int], list[float]]:
        """A random segment over and over; every place after its first time is a target."""
        period = self._random.randint(SHORTEST_PERIOD, longest)
        segment = self._random.choices(words, k=period)
        ids = [self._bos, *(segment * (length // period + 1))][:length]
        return ids, [0.0] * (period + 2) + [1.0] * (length - period - 2)

    def _pairs(self, length: int, words: list[int]) -> tuple[list[int], list[float]]:
        """Random pairs, then their first words again and again: their second ones are targets."""
        keys = self._random.sample(words, PAIRS_AT_ONCE)
        values = self._random.choices(words, k=PAIRS_AT_ONCE)
        asked = self._random.choices(range(PAIRS_AT_ONCE), k=(length - 1) // 2 - PAIRS_AT_ONCE)
        ids = [self._bos]
        for index in [*range(PAIRS_AT_ONCE), *asked]:
            ids += [keys[index], values[index]]
        return ids, [0.0] * (1 + 2 * PAIRS_AT_ONCE) + [0.0, 1.0] * len(asked)

    def _task(self, kind: str, length: int) -> tuple[list[int], list[float]]:
        room = TokenRoom(length, self._count, self._random, "train")
        sample = MAKERS[kind](room)
        ids = [self._bos, *self._ids(sample.context)]
        weights = [TEXT_WEIGHT if kind in OF_TEXT else 0.0] * len(ids)
        for question in sample.questions:
            asked = self._ids(question.prompt)
            words = list(question.answers)
            if not question.ordered and kind != FOLLOWED:
                self._random.shuffle(words)
            answer = self._ids(" ".join(words))
            ids += [*asked, *answer, *self._ids(".")]
            weights += [0.0] * len(asked) + [1.0] * len(answer) + [0.0]
        return ids, weights

    def _ids(self, text: str) -> list[int]:
        return list(self._encode(text, add_special_tokens=False).ids)

    def _count(self, text: str) -> int:
        if text not in self._counted:
            if len(self._counted) > 100_000:
                self._counted.clear()
            self._counted[text] = len(self._ids(text))
        return self._counted[text]
