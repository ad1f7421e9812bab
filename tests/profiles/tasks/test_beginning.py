"""What tokenizers put before a text, with real ones of `tokenizers`."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from profiles.errors import ProfileError
from profiles.tasks.beginning import beginning, cut

SPECIAL = {"[BOS]": 0, "[GO]": 1, "[EOS]": 2, "[UNK]": 3}
WORDS = {f"w{number}": 4 + number for number in range(40)}


def tokenizer(template: str, bos: str | None = "[BOS]") -> PreTrainedTokenizerFast:
    """Begins and ends texts by a template, as `[BOS] [GO] $0`; `$0` alone adds nothing."""
    made = Tokenizer(WordLevel({**SPECIAL, **WORDS}, unk_token="[UNK]"))
    made.pre_tokenizer = WhitespaceSplit()
    if template != "$0":
        made.post_processor = TemplateProcessing(template, special_tokens=[*SPECIAL.items()])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=bos, unk_token="[UNK]")


@pytest.mark.parametrize(
    ("template", "begun"),
    [
        ("$0", []),
        ("[BOS] $0", [0]),
        ("[BOS] [GO] $0", [0, 1]),
        ("[GO] $0 [EOS]", [1]),
        ("$0 [EOS]", []),
    ],
)
@pytest.mark.parametrize("bos", ["[BOS]", None])
def test_what_the_tokenizer_adds(template: str, begun: list[int], bos: str | None) -> None:
    assert beginning(tokenizer(template, bos)) == begun


def test_a_tokenizer_that_does_not_tell() -> None:
    def strange(_text: str, **options: object) -> dict[str, list[int]]:
        return {"input_ids": [9] if "add_special_tokens" in options else [7, 8]}

    with pytest.raises(ProfileError, match=r"\[9\] of 'a' without special tokens, and \[7, 8\]"):
        beginning(strange)


def test_a_cut_keeps_the_beginning_and_the_end() -> None:
    ids = [0, 1, *range(10, 20)]
    assert cut(ids, 5, [0, 1]) == [0, 1, 17, 18, 19]
    assert cut(ids, 5, []) == [15, 16, 17, 18, 19]
    assert cut(ids, 12, [0, 1]) == cut(ids, 20, [0, 1]) == ids
