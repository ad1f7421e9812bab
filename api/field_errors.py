"""Bad fields of a body by the names that its sender knows, whatever pydantic calls their place."""

import re
from collections.abc import Sequence
from typing import Any

from api.client.bodies import FieldError

MAX_FIELD_ERRORS = 20
MOST_SHOWN = 1000
"""Characters of a text that was sent which its refusal repeats."""
OWN_FIELDS = re.compile(r"([a-z_.]+(?:, [a-z_.]+)*): (.*)", re.DOTALL)


def shown(text: str) -> str:
    """A text, or the beginning and the end of a long one."""
    half = MOST_SHOWN // 2
    return text if len(text) <= MOST_SHOWN else f"{text[:half]} ... {text[-half:]}"


def field_errors(faults: Sequence[Any], body: object) -> list[FieldError]:
    """What pydantic found wrong, by the names that the client gave; `loc` begins with the place."""
    found = []
    for fault in faults:
        place, *path = fault["loc"]
        if place == "body" and _of_an_unmeant_branch(path, fault["type"], body):
            continue
        keys = _keys(path, fault["type"], body) if place == "body" else [*map(str, path)]
        message = str(fault["msg"]).removeprefix("Value error, ")
        # A rule over several values names its fields itself: `gpus: give either ...`.
        named = OWN_FIELDS.match(message) if fault["type"] == "value_error" else None
        own, message = (named[1].split(", "), named[2]) if named else ([], message)
        for path_of in [[*keys, name] for name in own] or [keys]:
            found.append(FieldError(field=".".join(path_of) or "body", message=message))
        if len(found) >= MAX_FIELD_ERRORS:
            break
    return found[:MAX_FIELD_ERRORS]


def _of_an_unmeant_branch(path: Sequence[Any], kind: str, body: object) -> bool:
    """Whether a union's `name` branch complains of what was meant as an inline object."""
    value = body
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[part]
    return kind == "string_type" and str(path[-1]).endswith("str") and isinstance(value, dict)


def _keys(path: Sequence[Any], kind: str, body: object) -> list[str]:
    """The parts of a fault's path that are keys of the body, without pydantic's branch names."""
    keys, value = [], body
    for position, part in enumerate(path):
        absent = kind == "missing" and position == len(path) - 1
        if isinstance(value, dict) and (part in value or absent):
            keys.append(str(part))
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            keys.append(str(part))
            value = value[part]
    return keys
