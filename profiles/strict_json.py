"""JSON that can be read in one way only.

Parsers differ in what they make of a key that comes twice, and no text can be stored or sent that
holds half of a surrogate pair: both are refused by name. A byte-order mark at the beginning is
dropped, as RFC 8259 (section 8.1) allows.
"""

import json
import re
from typing import Any

BYTE_ORDER_MARK = "\ufeff"
ESCAPED_SURROGATE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)
SURROGATE = re.compile("[\ud800-\udfff]")


class JsonError(ValueError):
    """What was read is no JSON that can be used. `field` names the value, where that is known."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.message, self.field = message, field


def parse_json(content: str | bytes) -> Any:
    """What a JSON text says. Raises JsonError with line and column where it is cut off or broken.

    >>> parse_json('{"a": [1, 2]}')
    {'a': [1, 2]}
    """
    try:
        text = content.decode() if isinstance(content, bytes) else content
        text = text.removeprefix(BYTE_ORDER_MARK)
        value = json.loads(text, object_pairs_hook=_single)
    except UnicodeDecodeError as error:
        raise JsonError(f"not valid JSON: not UTF-8: byte {error.start}: {error.reason}") from None
    except json.JSONDecodeError as error:
        raise JsonError(f"not valid JSON: {error}") from None
    except RecursionError:
        raise JsonError("not valid JSON: nested too deeply") from None
    if ESCAPED_SURROGATE.search(text) or SURROGATE.search(text):
        _refuse_halves(value)
    return value


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise JsonError("stands twice in one object", next(k for k in keys if keys.count(k) > 1))
    return found


def _refuse_halves(value: Any) -> None:
    """Raise for the first text, of keys and values, that holds half a surrogate pair."""
    left: list[tuple[str, Any]] = [("", value)]
    while left:
        field, part = left.pop()
        if isinstance(part, str) and SURROGATE.search(part):
            raise JsonError("holds half of a surrogate pair, which is no character", field)
        if isinstance(part, dict):
            for key in part:
                if SURROGATE.search(key):
                    raise JsonError("a key holds half of a surrogate pair", field)
        inside = (
            part.items()
            if isinstance(part, dict)
            else enumerate(part)
            if isinstance(part, list)
            else ()
        )
        left += [(f"{field}.{name}".lstrip("."), each) for name, each in inside]
