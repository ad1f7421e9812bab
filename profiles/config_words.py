"""What a field of a model's configuration is about, by the words of its name.

Spellings are made up faster than a list of them grows; what they speak of is in their words.
"""

import re
from collections.abc import Mapping
from typing import Any

ATTENTION = {"attention", "attn"}
MIXERS = ATTENTION | {"block", "hybrid", "mixer", "mamba", "ssm", "recurrent"}
REACHES = {"global", "full", "local", "sliding", "swa"}
KINDS = {"type", "kind", "pattern", "config"}
PLACES = {"layer", "period", "interval", "every", "idx", "index", "indexe", "indice", "id", "list"}
ELSEWHERE = {"norm", "scale", "mlp", "moe", "expert", "ffn"}
"""What a layer has that changes nothing of who sees what."""
PLAIN = {"full_attention", "full", "global", "attention", "multihead_attention"}
"""Names of the kind of layer in which every query head sees everything."""


def words_of(name: str) -> frozenset[str]:
    """The words, in the singular; a key-value head is a KV head.

    >>> sorted(words_of("num_key_value_groups")), sorted(words_of("nKVHeads"))
    (['group', 'kv', 'num'], ['head', 'kv', 'n'])
    """
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    parted = re.sub(r"key_?values?", "kv", parted).replace("multiquery", "multi_query")
    return frozenset(word.removesuffix("s") for word in re.findall(r"[a-z]+", parted))


def about_kv_heads(name: str) -> bool:
    """How query heads share KV heads."""
    words = words_of(name)
    grouped = "group" in words and words & {"kv", "query", "head", *ATTENTION}
    return bool(grouped or words & {"gqa", "mqa"} or words >= {"kv", "head"}) or (
        words >= {"multi", "query"}
    )


def about_some_layers(name: str) -> bool:
    """What some layers have, beside that which all are said to have."""
    words = words_of(name)
    apart = "config" in words and words & {"layer", "block"}
    return bool(apart or ("head" in words and words & {"layer", *REACHES}))


def about_layers(name: str) -> bool:
    """Which layers attend, to how much, and what the others do instead."""
    words = words_of(name)
    if words & ELSEWHERE:
        return False
    arranged = words & (MIXERS | REACHES) and words & (KINDS | PLACES)
    in_part = words & ATTENTION and words & {"chunk", "local"}
    return bool(
        arranged
        or in_part
        or words & {"window", "sliding", "swa"}
        or ("layer" in words and words & KINDS)
    )


def says_nothing(value: object) -> bool:
    """Null, false, 0, -1 or nothing at all, or that every layer sees everything."""
    if isinstance(value, int | float):
        return value <= 0
    if isinstance(value, list):
        return all(isinstance(each, str) and says_nothing(each) for each in value)
    return not value or (isinstance(value, str) and value.lower() in PLAIN)


def with_attention(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, and in their place those of objects that are about attention (MPT, DBRX)."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        inside = isinstance(value, dict) and words_of(name) & ATTENTION
        found.update(value if inside else {name: value})
    return found
