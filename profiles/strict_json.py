"""JSON that can be read in one way only.

Parsers differ in what they make of a key that comes twice, and no text can be stored or sent that
holds half of a surrogate pair: both are refused by name. A byte-order mark at the beginning is
dropped, as RFC 8259 (section 8.1) allows.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

BYTE_ORDER_MARK = "\ufeff"
ESCAPED_SURROGATE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)
SURROGATE = re.compile("[\ud800-\udfff]")


class JsonError(ValueError):
    """What was read is no JSON that can be used. `field` names the value, where that is known."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.message, self.field = message, field


def parse_json(content: str | bytes, most_keys: int | None = None) -> Any:
    """What a JSON text says. Raises JsonError with line and column where it is cut off or broken.

    `most_keys`: of one object, where there is a limit to them.

    >>> parse_json('{"a": [1, 2]}')
    {'a': [1, 2]}
    """

    def single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
            raise JsonError("stands twice in one object", twice)
        if most_keys is not None and len(found) > most_keys:
            raise JsonError(f"not what it may be: {len(found)} keys in one object")
        return found

    try:
        text = content.decode() if isinstance(content, bytes) else content
        text = text.removeprefix(BYTE_ORDER_MARK)
        value = json.loads(text, object_pairs_hook=single)
        if ESCAPED_SURROGATE.search(text) or SURROGATE.search(text):
            _refuse_halves(value)
        return value
    except UnicodeDecodeError as error:
        raise JsonError(f"not valid JSON: not UTF-8: byte {error.start}: {error.reason}") from None
    except json.JSONDecodeError as error:
        raise JsonError(f"not valid JSON: {error}") from None
    except RecursionError:
        raise JsonError("not valid JSON: nested too deeply") from None
    except JsonError:
        raise
    except ValueError:
        # Of Python's own limit to the digits of a whole number, which no figure comes near.
        limit = sys.get_int_max_str_digits()
        raise JsonError(f"not valid JSON: a whole number of more than {limit} digits") from None


def _refuse_halves(value: Any) -> None:
    """Raise for the first text, of keys and values, that holds half a surrogate pair."""
    if (found := _half(value)) is not None:
        path, said = found
        raise JsonError(said, ".".join(reversed(path)))


def _half(value: Any) -> tuple[list[str], str] | None:
    """The path to the first such text, from its end, and what is to be said of it."""
    if isinstance(value, str):
        said = "holds half of a surrogate pair, which is no character"
        return ([], said) if SURROGATE.search(value) else None
    if isinstance(value, dict):
        for key in value:
            if SURROGATE.search(key):
                return [], "a key holds half of a surrogate pair"
        inside: Iterable[tuple[object, Any]] = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    else:
        return None
    for name, part in inside:
        if (found := _half(part)) is not None:
            found[0].append(str(name))
            return found
    return None
