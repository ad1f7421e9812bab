"""Models whose lists end at their first fault: of a million wrong entries one is told, not each."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema

COLLECTIONS = frozenset({"list", "tuple", "set", "frozenset", "dict"})


class FirstFault:
    """Stands before BaseModel among the bases of a model that may be read from outside.

    pydantic tells every fault of a list unless told otherwise, at about a kilobyte each.
    """

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        schema = handler(source)
        for part in _parts(schema):
            if part["type"] in COLLECTIONS:
                part["fail_fast"] = True
        return schema


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """A core schema and those inside it; defaults, metadata and serialisers are none."""
    if isinstance(schema, list):
        for each in schema:
            yield from _parts(each)
    elif isinstance(schema, dict):
        if isinstance(schema.get("type"), str):
            yield schema
        for key, inside in schema.items():
            if key not in ("default", "metadata", "serialization", "cls"):
                yield from _parts(inside)
