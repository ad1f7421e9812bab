"""What begins a prompt: the tokens that the tokenizer itself puts before every text."""

from typing import Any

from profiles.errors import ProfileError


def beginning(tokenizer: Any) -> list[int]:
    """The special tokens before a text: two, one or none, whatever its `bos_token_id` is.

    Some tokenizers have a token for beginnings that their prompts do not begin with, and others
    begin with more than that token; so a text is tried with and without what is added. Raises
    ProfileError where neither contains the other.
    """
    probe = "a"
    added = list(tokenizer(probe, verbose=False)["input_ids"])
    plain = list(tokenizer(probe, add_special_tokens=False, verbose=False)["input_ids"])
    for place in range(len(added) - len(plain) + 1):
        if added[place : place + len(plain)] == plain:
            return added[:place]
    raise ProfileError(
        f"the model's tokenizer makes {plain} of {probe!r} without special tokens, and {added} "
        "with them: what it begins a text with cannot be told"
    )


def cut(ids: list[int], tokens: int, begun: list[int]) -> list[int]:
    """The last of `ids`, `tokens` in all, behind the beginning `begun` where they have it."""
    kept = len(begun) if ids[: len(begun)] == begun else 0
    return [*ids[:kept], *ids[kept + max(0, len(ids) - tokens) :]]
