"""Forms: what a piece of JSON must look like, read with its defaults filled in.

A form takes a path, a value and the list of faults so far; it returns the value with every
optional field in it, or adds a fault that names the path.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Form = Callable[[str, Any, list[str]], Any]


@dataclass(frozen=True)
class Default:
    """A field that may be left out, and what it then is."""

    form: Form
    value: Any


def number(low: float, high: float) -> Form:
    """A number in [low, high]; NaN is in no range."""

    def read(path: str, value: Any, faults: list[str]) -> Any:
        real = isinstance(value, int | float) and not isinstance(value, bool)
        if not real or not low <= value <= high:
            faults.append(f"{path}: is not a number from {low:g} to {high:g}")
        return value

    return read


def whole(low: int, high: int) -> Form:
    """A whole number in [low, high]."""

    def read(path: str, value: Any, faults: list[str]) -> Any:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            faults.append(f"{path}: is not a whole number from {low} to {high}")
        return value

    return read


def text(*options: str) -> Form:
    """Any text, or one of the options."""

    def read(path: str, value: Any, faults: list[str]) -> Any:
        if not isinstance(value, str):
            faults.append(f"{path}: is not text")
        elif options and value not in options:
            faults.append(f"{path}: is not one of {', '.join(options)}")
        return value

    return read


def flag(path: str, value: Any, faults: list[str]) -> Any:
    """True or false."""
    if not isinstance(value, bool):
        faults.append(f"{path}: is not true or false")
    return value


def named_texts(path: str, value: Any, faults: list[str]) -> Any:
    """An object of texts, whatever their names."""
    pairs = value.items() if isinstance(value, dict) else [(None, None)]
    if not all(isinstance(name, str) and isinstance(said, str) for name, said in pairs):
        faults.append(f"{path}: is not an object of texts")
    return value


def maybe(form: Form) -> Form:
    """The form, or null."""

    def read(path: str, value: Any, faults: list[str]) -> Any:
        return None if value is None else form(path, value, faults)

    return read


def listing(each: Form) -> Form:
    """A list of any length."""

    def read(path: str, value: Any, faults: list[str]) -> Any:
        if not isinstance(value, list | tuple):
            faults.append(f"{path}: is not a list")
            return []
        return [each(f"{path}.{index}", part, faults) for index, part in enumerate(value)]

    return read


def one_of(tag: str, **records: Form) -> Form:
    """One of the records, named by its field `tag`."""

    def read(path: str, value: Any, faults: list[str]) -> Any:
        name = value.get(tag) if isinstance(value, dict) else None
        if not isinstance(name, str) or name not in records:
            faults.append(f"{path}.{tag}: is not one of {', '.join(records)}")
            return value
        return {tag: name, **records[name](path, value, faults)}

    return read


def record(**fields: Form | Default) -> Form:
    """An object with these fields."""

    def read(path: str, value: Any, faults: list[str]) -> Any:
        if not isinstance(value, dict):
            faults.append(f"{path or 'plan'}: is not an object")
            return {}
        found = {}
        for name, field in fields.items():
            where = f"{path}.{name}" if path else name
            if name in value:
                form = field.form if isinstance(field, Default) else field
                found[name] = form(where, value[name], faults)
            elif isinstance(field, Default):
                found[name] = field.value
            else:
                faults.append(f"{where}: is missing")
        return found

    return read
