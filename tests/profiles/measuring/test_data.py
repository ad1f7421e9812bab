"""Which prompts serve which context, and where their answers stand."""

from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from profiles.measuring.choices import Choices
from profiles.measuring.data import Item, items
from profiles.tasks.example import Question
from profiles.tasks.prompts import Prompt

from . import tiny


@pytest.fixture
def tokenizer(tmp_path: Path):
    tiny.tokenizer(tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path)


def found(read: list[Prompt], tokenizer, contexts: tuple[int, ...], **changes) -> list[Item]:
    choices = Choices("m", Path("d"), contexts, **{"block_tokens": 16, "rows": 8, **changes})
    return items(read, tokenizer, choices)


def test_plain_texts_serve_every_context_they_fill(tokenizer) -> None:
    prompts = [Prompt(text=tiny.text(length, length)) for length in (40, 64, 100)]
    places = [(item.context_tokens, item.number) for item in found(prompts, tokenizer, (32, 64))]
    assert places == [(32, 0), (32, 1), (32, 2), (64, 1), (64, 2)]
    few = found(prompts, tokenizer, (32, 64), prompts=1)
    assert [(item.context_tokens, item.number) for item in few] == [(32, 0), (64, 1)]


def test_a_text_is_cut_at_its_beginning(tokenizer) -> None:
    text = tiny.text(50, 1)
    (item,) = found([Prompt(text=text)], tokenizer, (32,))
    assert tokenizer.decode(item.tokens).split() == text.split()[-32:]
    assert item.answers == tuple(range(1, 32))


@pytest.mark.parametrize("begun", [["[BOS]"], ["[BOS]", "w3"]])
def test_what_the_tokenizer_begins_with_is_kept(tokenizer, begun: list[str]) -> None:
    """And what only looks like it is text: it was not added."""
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in begun]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        " ".join([*begun, "$0"]), special_tokens=special
    )
    text = "[BOS] " + tiny.text(50, 1)
    (item,) = found([Prompt(text=text)], tokenizer, (32,))
    kept = 32 - len(begun)
    assert tokenizer.decode(item.tokens).split() == [*begun, *text.split()[-kept:]]
    assert item.answers == tuple(range(len(begun), 32))


def test_a_token_for_beginnings_that_is_not_added_is_none(tokenizer) -> None:
    text = "[BOS] " + tiny.text(50, 1)
    (item,) = found([Prompt(text=text)], tokenizer, (32,))
    assert tokenizer.bos_token_id is not None
    assert tokenizer.decode(item.tokens).split() == text.split()[-32:]


def test_generated_prompts_belong_to_their_context(tokenizer) -> None:
    prompts = [
        Prompt(text=tiny.text(length, 0), task="t", tokens=64) for length in (40, 48, 60, 70)
    ]
    made = found([*prompts, Prompt(text=tiny.text(40, 0))], tokenizer, (32, 64))
    assert [(item.context_tokens, item.number, len(item.tokens)) for item in made] == [
        (32, 4, 32),
        (64, 1, 48),
        (64, 2, 60),
        (64, 3, 64),
    ]


def test_answers_are_found_in_the_tokens(tokenizer) -> None:
    questions = (
        Question("w1 w2", ("w7", "w8")),
        Question("w3", ("w9",)),
    )
    prompt = Prompt(text=tiny.text(40, 2), task="t", questions=questions)
    for context in (32, 36):
        (item,) = found([prompt], tokenizer, (context,))
        words = tokenizer.decode(item.tokens).split()
        assert words[-8:] == ["w1", "w2", "w7", "w8", ".", "w3", "w9", "."]
        assert [words[place] for place in item.answers] == ["w7", "w8", "w9"]
