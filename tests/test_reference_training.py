"""The script that trained the reference model: its curriculum, its batches, and going on."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks.reference_model.batches import COPY, PAIRS, Batches
from benchmarks.reference_model.curriculum import LENGTHS, TASK_SHARES, WORDS_ONLY, Curriculum
from benchmarks.reference_model.tokenizer import build
from benchmarks.reference_model.train import Progress, new_model, rate, train
from profiles.tasks.words import NAMES, NUMBERS, SYLLABLES


@pytest.fixture(scope="module")
def batches() -> Batches:
    return Batches(build(), seed=1)


def test_every_word_of_the_tasks_is_one_token() -> None:
    tokenizer = build()
    for word in (*NAMES, *NUMBERS, *SYLLABLES):
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1


def test_words_double_once_repetitions_are_followed() -> None:
    at = Curriculum(right={COPY: 0.9})
    at.saw({COPY: (1, 1)}, done=0.0, all_words=1000)
    assert (at.stage, at.words) == (0, 128)
    at.saw({COPY: (0, 1)}, done=0.0, all_words=1000)
    assert at.words == 128
    at.saw({COPY: (0, 1)}, done=0.5, all_words=1000)
    assert (at.stage, at.words) == (1, 1000)


def test_a_length_is_left_when_solved_or_late() -> None:
    solved = Curriculum(stage=1, right=dict.fromkeys(TASK_SHARES, 0.99))
    solved.saw({}, done=0.01, all_words=1)
    assert solved.length == LENGTHS[2]
    one_open = Curriculum(stage=1, right=dict.fromkeys(TASK_SHARES, 0.99) | {"vt": 0.5})
    one_open.saw({}, done=0.01, all_words=1)
    assert one_open.stage == 1
    one_open.saw({}, done=0.99, all_words=1)
    assert one_open.stage == 2
    last = Curriculum(stage=len(LENGTHS) - 1, right=dict.fromkeys(TASK_SHARES, 1.0))
    last.saw({}, done=1.0, all_words=1)
    assert last.stage == len(LENGTHS) - 1


def test_what_is_wrong_is_drawn_more_often() -> None:
    at = Curriculum(stage=1, right=dict.fromkeys(TASK_SHARES, 1.0) | {"vt": 0.0})
    assert at.shares["vt"] == pytest.approx(TASK_SHARES["vt"])
    assert at.shares["qa_1"] == pytest.approx(0.2 * TASK_SHARES["qa_1"])


@pytest.mark.parametrize("length", [64, 128, 512])
def test_every_target_follows_from_its_row(batches: Batches, length: int) -> None:
    """In copies and pairs, what is asked stood behind the same word before."""
    batch = batches.draw(length, WORDS_ONLY, words=64, period=16)
    assert set(batch.kinds) <= {COPY, PAIRS}
    asked = 0
    for tokens, weight in zip(batch.tokens.tolist(), batch.weight.tolist(), strict=True):
        for place in range(2, length):
            if weight[place] == 1.0:
                before, word = tokens[place - 1], tokens[place]
                assert (before, word) in set(pairwise(tokens[:place]))
                asked += 1
    assert asked > 0.2 * batch.tokens.numel()


def test_task_batches_ask_for_answers(batches: Batches) -> None:
    batch = batches.draw(256, TASK_SHARES, words=500, period=100)
    assert batch.tokens.shape == batch.weight.shape
    assert all((row == 1).any() for row in batch.weight)


def test_the_rate_warms_up_and_comes_down() -> None:
    assert rate(0.0, 0) < rate(0.0, 50) < rate(0.0, 200) == 1.0
    assert rate(0.9, 5000) < rate(0.8, 5000) < rate(0.5, 5000)
    assert rate(1.0, 5000) > 0


def test_a_head_of_the_first_layer_looks_one_back() -> None:
    torch.manual_seed(0)
    model = new_model(build())
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(torch.randint(4, 2000, (1, 64)), output_attentions=True)
    first = out.attentions[0][0, 0]
    back = torch.stack([first.diagonal(-d).mean() for d in range(6)])
    assert int(back.argmax()) == 1


@pytest.mark.slow
def test_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first = train(tmp_path, minutes=1e-6, seed=1)
    assert first.step == 1
    again = train(tmp_path, minutes=first.seconds / 60 + 1e-6, seed=1)
    assert again.step == 2
    assert again.seconds > first.seconds
    assert (tmp_path / "model" / "model.safetensors").exists()
    assert isinstance(again, Progress)
    assert not list(tmp_path.glob("*.partial"))
