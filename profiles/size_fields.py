"""The fields of a record that states a block and a piece, in JSON too."""

from typing import Any, Self

from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from profiles.sizes import sizes_fault


def block_of(fields: dict[str, Any]) -> int:
    """A record's piece where it states none: its block."""
    return int(fields["block_tokens"])


class SizeFields(BaseModel):
    """A record that states both sizes where they differ.

    Where they do not, `piece_tokens` is left out of the JSON, so that what was named before there
    were two sizes keeps its name.
    """

    block_tokens: int
    piece_tokens: int = Field(default_factory=block_of)

    @model_validator(mode="after")
    def _pieces_divide_blocks(self) -> Self:
        fault = sizes_fault(self.block_tokens, self.piece_tokens)
        if fault is not None:
            raise ValueError(fault)
        return self

    # Without a return type, which would stand for the fields in the JSON schema.
    @model_serializer(mode="wrap")
    def _one_size_once(self, fields: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]
        found: dict[str, Any] = fields(self)
        if self.piece_tokens == self.block_tokens:
            found.pop("piece_tokens", None)
        return found
