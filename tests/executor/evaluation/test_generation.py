"""Generation with the K/V cache against teacher forcing, and the windows of text."""

from pathlib import Path

import pytest
import torch
from tokenizers.processors import Sequence

from executor.errors import EvaluationError
from executor.evaluation.asked import Asked, Word
from executor.evaluation.generation import compare
from executor.evaluation.journal import Row
from executor.evaluation.methods import Method
from executor.evaluation.scoring import answer, logits_at_once
from executor.evaluation.texts import windows
from executor.inference.budget_policy import BudgetPolicy
from profiles.measuring.loading import Loaded
from profiles.selection import POOLED
from tests.executor.evaluation.builders import (
    HEADS,
    LAYERS,
    task_tokenizer,
    tiny_model,
    tiny_profile,
)

TOKENIZER = task_tokenizer()
MODEL = tiny_model(len(TOKENIZER))
LOADED = Loaded(MODEL, TOKENIZER, tiny_profile().architecture, "")


def own_words() -> Asked:
    """A prompt, and as its answer what the model itself says next, token by token."""
    torch.manual_seed(1)
    ids = [1, *torch.randint(2, len(TOKENIZER), (69,)).tolist()]
    for _ in range(3):
        logits, _ = logits_at_once(MODEL, (*ids, 0), (len(ids),), None, 16)
        ids.append(int(logits[0].argmax()))
    words = tuple(Word(0, at, at + 1) for at in range(70, 73))
    return Asked("vt", 5, tuple(ids), words, (True,))


@pytest.mark.parametrize("dense", [True, False])
def test_what_the_model_says_itself_scores_whole_both_ways(dense: bool) -> None:
    policy = None if dense else BudgetPolicy([[80] * HEADS] * LAYERS, block_tokens=16)
    asked = own_words()
    tokens = torch.tensor([[80] * HEADS] * LAYERS).numpy()
    method = Method("m", None, policy, tokens, POOLED, {})
    for change, wanted in ((0, 1.0), (1, 0.0)):
        ids = tuple(token if at < 70 else (token + change) for at, token in enumerate(asked.ids))
        other = Asked(asked.task, asked.seed, ids, asked.words, asked.ordered)
        forced, _ = answer(MODEL, other, policy, 16)
        rows = [Row(80, "m", None, method.setup, "vt", 5, forced, 1, 1)]
        found = compare(LOADED, method, [other], rows)
        assert found.generated == wanted
        assert found.samples == 1
        if not change:
            assert (found.teacher_forced, found.alike) == (1.0, 1.0)


def test_windows_do_not_overlap_and_begin_as_prompts_do(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("Ann lives in . " * 30)
    found = windows(file, TOKENIZER, 50, 9)
    plain = TOKENIZER(file.read_text(), add_special_tokens=False)["input_ids"]
    assert len(found) == 120 // 49
    assert all(len(window) == 50 and window[0] == TOKENIZER.bos_token_id for window in found)
    assert [*found[0][1:], *found[1][1:]] == plain[:98]
    assert len(windows(file, TOKENIZER, 50, 1)) == 1
    with pytest.raises(EvaluationError, match="120 tokens are too few for a window of 200"):
        windows(file, TOKENIZER, 200, 9)


def test_windows_begin_with_nothing_where_prompts_do(tmp_path: Path) -> None:
    """Though the tokenizer has a token for it."""
    file, without = tmp_path / "text", task_tokenizer()
    without.backend_tokenizer.post_processor = Sequence([])
    file.write_bytes(b"\xef\xbb\xbf" + b"works lives in .\r\n" * 30)
    (first, _) = windows(file, without, 50, 9)
    assert without.decode(first).split()[:5] == ["works", "lives", "in", ".", "works"]
    assert without.bos_token_id not in first
