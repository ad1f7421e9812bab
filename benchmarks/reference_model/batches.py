"""Training batches: many questions a context, and a target at every place of a repetition."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from profiles.tasks import answering, counting, needles, tracking
from profiles.tasks.haystack import Noise, Text
from profiles.tasks.room import Room
from profiles.tasks.sample import Sample

TOKENS_A_STEP = 4096
TEXT_WEIGHT = 0.1
COPY = "copy"
# How often each kind is drawn. Kinds with many questions teach retrieval fastest.
SHARES = {
    COPY: 3.0,
    "niah_multikey_2": 3.0,
    "niah_multikey_3": 3.0,
    "niah_multiquery": 2.0,
    "niah_single_1": 0.5,
    "niah_single_3": 1.0,
    "niah_multivalue": 1.0,
    "vt": 1.0,
    "cwe": 0.5,
    "fwe": 0.5,
    "qa_1": 1.0,
    "qa_2": 1.0,
}
OF_TEXT = {"niah_multiquery", "niah_single_3", "niah_multivalue"}


def _many(tokens: int) -> int:
    """Questions asked of one context: enough to learn from, without filling it."""
    return max(6, min(128, tokens // 12))


def _few(tokens: int) -> int:
    return max(1, min(8, tokens // 100))


MAKERS: dict[str, Callable[[Room], Sample]] = {
    "niah_multikey_2": lambda r: needles.every_line(r, "train", asked=_many(r.tokens)),
    "niah_multikey_3": lambda r: needles.every_line_codes(r, "train", asked=_many(r.tokens)),
    "niah_multiquery": lambda r: needles.hidden(
        "niah_multiquery",
        r,
        Text(r.random, "train"),
        keys=_many(r.tokens) // 2,
        asked=_many(r.tokens) // 2,
    ),
    "niah_single_1": lambda r: needles.hidden(
        "niah_single_1", r, Noise(), keys=_few(r.tokens), asked=_few(r.tokens)
    ),
    "niah_single_3": lambda r: needles.single_long_value(r, "train", keys=2 * _few(r.tokens)),
    "niah_multivalue": lambda r: needles.multi_value(r, "train", keys=_few(r.tokens)),
    "vt": lambda r: tracking.variable_tracking(r, "train", chains=_few(r.tokens)),
    "cwe": lambda r: counting.common_words(r, "train"),
    "fwe": lambda r: counting.frequent_words(r, "train"),
    "qa_1": lambda r: answering.one_fact(r, "train", asked=_many(r.tokens) // 2),
    "qa_2": lambda r: answering.two_facts(r, "train", asked=_many(r.tokens) // 2),
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
        self._counted: dict[str, int] = {}

    def draw(self, length: int, shares: dict[str, float]) -> Batch:
        rows = max(1, TOKENS_A_STEP // length)
        kinds = self._random.choices(list(shares), list(shares.values()), k=rows)
        tokens = torch.full((rows, length), self._pad)
        weight = torch.zeros(rows, length)
        for row, kind in enumerate(kinds):
            ids, weights = self._copy(length) if kind == COPY else self._task(kind, length)
            n = min(length, len(ids))
            tokens[row, :n] = torch.tensor(ids[:n])
            weight[row, :n] = torch.tensor(weights[:n])
        return Batch(tokens, weight, kinds)

    def _copy(self, length: int) -> tuple[list[int], list[float]]:
        """A random segment over and over; every place after its first time is a target."""
        period = self._random.randint(8, (length - 1) // 2)
        segment = self._random.choices(self._words, k=period)
        ids = [self._bos, *(segment * (length // period + 1))][:length]
        return ids, [0.0] * (period + 2) + [1.0] * (length - period - 2)

    def _task(self, kind: str, length: int) -> tuple[list[int], list[float]]:
        room = Room(length, self._count, self._random)
        sample = MAKERS[kind](room)
        ids = [self._bos, *self._ids(sample.context)]
        weights = [TEXT_WEIGHT if kind in OF_TEXT else 0.0] * len(ids)
        for question in sample.questions:
            asked = self._ids(question.prompt)
            words = list(question.answers)
            if not question.ordered:
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
