"""Counting in a model's own tokens."""

from functools import cache

from transformers import AutoTokenizer

from profiles.errors import MeasuringError
from profiles.measuring.loading import folder_of
from profiles.tasks.room import Count


def counter(model: str) -> Count:
    """How many tokens a text takes beside others. Raises MeasuringError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder_of(model), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().partition("\n")[0]
        raise MeasuringError(f"{model}: its tokenizer cannot be loaded: {first}") from None

    @cache
    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return count
