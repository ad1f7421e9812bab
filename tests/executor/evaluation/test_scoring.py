"""Scores against cases counted by hand, and logits against the model's own."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from executor.errors import EvaluationError
from executor.evaluation.asked import Asked, ask
from executor.evaluation.scoring import answer, logits_at_once, logits_step_by_step, surprise
from executor.evaluation.top_p import TopP, Watching
from executor.inference.budget_policy import BudgetPolicy
from profiles.tasks.example import Example, Question
from tests.executor.evaluation.builders import HEADS, LAYERS, tiny_model, tokenizer_of

WORDS = [
    "[UNK]",
    "[BOS]",
    "who",
    "is",
    ".",
    "Ann",
    "Bob",
    "Cy",
    "Bo",
    "##ris",
    "##rat",
    "12",
    "##3",
]
TOKENIZER = tokenizer_of(WORDS)


class Says:
    """A model whose likeliest next token at each place is given; anywhere else it is [UNK]."""

    device = torch.device("cpu")
    config: Any = SimpleNamespace(num_hidden_layers=1, num_attention_heads=1)

    def __init__(self, asked: Asked, words: dict[int, str]) -> None:
        self.config.get_text_config = lambda: self.config
        self._logits = torch.zeros(len(asked.ids), len(TOKENIZER))
        for place, word in words.items():
            self._logits[place - 1, TOKENIZER.convert_tokens_to_ids(word)] = 1.0

    def __call__(self, ids: torch.Tensor, past_key_values: int | None, **more: Any) -> Any:
        """The cache is the number of tokens read."""
        assert more == {"use_cache": True, "logits_to_keep": 1}
        read = (past_key_values or 0) + ids.shape[1]
        return SimpleNamespace(logits=self._logits[None, read - 1 : read], past_key_values=read)


def asked_of(*questions: Question) -> Asked:
    return ask(Example("vt", "Ann is Bob .", questions), 7, TOKENIZER)


def test_words_are_found_in_the_tokens_whatever_pieces_they_have() -> None:
    asked = asked_of(Question("who", ("Boris", "Ann")), Question("is", ("123",), ordered=False))
    tokens = TOKENIZER.convert_ids_to_tokens(asked.ids)
    assert " ".join(tokens) == "[BOS] Ann is Bob . who Bo ##ris Ann . is 12 ##3 ."
    assert [(w.question, w.first, w.last) for w in asked.words] == [
        (0, 6, 8),
        (0, 8, 9),
        (1, 11, 13),
    ]
    assert asked.places == (6, 7, 8, 11, 12)
    assert asked.ordered == (True, False)


def test_a_word_is_right_only_with_all_its_tokens() -> None:
    asked = asked_of(Question("who", ("Boris", "Ann")))
    cases = [
        ({6: "Bo", 7: "##ris", 8: "Ann"}, 1.0),
        ({6: "Bo", 7: "##rat", 8: "Ann"}, 0.5),
        ({6: "Cy", 7: "##ris", 8: "Ann"}, 0.5),
        ({6: "Ann", 7: "##ris", 8: "Bo"}, 0.0),
    ]
    for said, wanted in cases:
        assert answer(Says(asked, said), asked, None, 16)[0] == wanted


def test_without_order_any_word_not_yet_named_is_right() -> None:
    asked = asked_of(Question("who", ("Ann", "Boris", "Cy"), ordered=False))
    assert [(w.first, w.last) for w in asked.words] == [(6, 7), (7, 9), (9, 10)]
    cases = [
        ({6: "Ann", 7: "Bo", 8: "##ris", 9: "Cy"}, 3),
        ({6: "Cy", 7: "Cy", 9: "Cy"}, 3),
        ({6: "Bo", 7: "Bo", 8: "##rat", 9: "Cy"}, 2),  # begun, and then another word
        ({6: "Ann", 7: "Ann", 9: "Ann"}, 1),  # named already
        ({6: "Bob", 7: "Bob", 9: "Bob"}, 0),
    ]
    for said, right in cases:
        assert answer(Says(asked, said), asked, None, 16)[0] == pytest.approx(right / 3)


def test_every_question_counts_its_own_words() -> None:
    asked = asked_of(Question("who", ("Ann",)), Question("who", ("Bob", "Cy"), ordered=False))
    said = {6: "Cy", 9: "Cy", 10: "Ann"}
    assert answer(Says(asked, said), asked, None, 16)[0] == pytest.approx(1 / 3)


def test_a_tokenizer_without_offsets_is_refused() -> None:
    with pytest.raises(EvaluationError, match="no fast tokenizer"):
        ask(Example("vt", "Ann .", (Question("who", ("Ann",)),)), 0, SimpleNamespace(is_fast=False))


def test_logits_are_the_models_own_and_dense_policies_change_nothing() -> None:
    model = tiny_model(50)
    ids = tuple(np.random.default_rng(0).integers(0, 50, 75).tolist())
    places = (1, 30, 64, 74)
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        eager = model(torch.tensor([ids])).logits[0, [0, 29, 63, 73]]
    policies = [
        None,
        BudgetPolicy([[75] * HEADS] * LAYERS, block_tokens=16),
        TopP(0.0, 16),
        Watching(LAYERS, HEADS, 16),
    ]
    for policy in policies:
        found, computed = logits_at_once(model, ids, places, policy, 16)
        torch.testing.assert_close(found, eager, rtol=1e-4, atol=1e-4)
        assert computed.tiles == computed.dense_tiles == LAYERS * HEADS * 5 * 6 // 2
        found, computed = logits_step_by_step(model, ids, places[1:], policy, 16)
        torch.testing.assert_close(found, eager[1:], rtol=1e-4, atol=1e-4)
        assert computed.tiles == computed.dense_tiles == LAYERS * HEADS * 2 * 3 // 2


def test_surprise_is_the_mean_cross_entropy_of_the_last_tokens() -> None:
    model = tiny_model(50)
    ids = tuple(np.random.default_rng(1).integers(0, 50, 40).tolist())
    with torch.inference_mode():
        logs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    wanted = -np.mean([float(logs[at - 1, ids[at]]) for at in range(30, 40)])
    assert surprise(model, ids, 10, None, 16)[0] == pytest.approx(wanted, rel=1e-5)
