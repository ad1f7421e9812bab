"""The model profile: an architecture and what its heads need, as versioned JSON."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from profiles.architecture import Architecture
from profiles.errors import ProfileError, describe
from profiles.files import json_of, read_bytes, write_atomically
from profiles.first_fault import FirstFault
from profiles.heads import Heads
from profiles.left_out import is_none
from profiles.measurement import Measurement
from profiles.selection import POOLED, Selection, Strided
from profiles.sizes import DEFAULT_BLOCK_TOKENS

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"


def as_name(text: str) -> str:
    """What of a text may be a name, "" where nothing may."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:128]


class ModelProfile(FirstFault, BaseModel):
    """What is known about a model's heads, where from, and whether it was made up.

    `selection` says how an executor chooses the pieces of a head's budget. `measurement` is filled
    by `hplb profiles measure`: on what and how.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    architecture: Architecture
    heads: Heads
    selection: Selection = POOLED
    source: Annotated[str, Field(min_length=1, max_length=2000)]
    synthetic: bool
    measurement: Annotated[Measurement | None, Field(exclude_if=is_none)] = None

    @model_validator(mode="after")
    def _figures_fit_architecture(self) -> Self:
        found = self.heads.shape()
        wanted = (self.architecture.layers, self.architecture.query_heads)
        if found != wanted:
            raise ValueError(
                f"heads: figures for {found[0]} layers x {found[1]} query heads, but the "
                f"architecture has {wanted[0]} x {wanted[1]}"
            )
        return self

    @model_validator(mode="after")
    def _dense_heads_exist(self) -> Self:
        selection, kv_heads = self.selection, self.architecture.kv_heads
        if isinstance(selection, Strided) and selection.dense_kv_heads > kv_heads:
            raise ValueError(
                f"selection.dense_kv_heads: {selection.dense_kv_heads}, but the architecture has "
                f"{kv_heads} KV heads"
            )
        return self

    def sizes(
        self, block_tokens: int | None = None, piece_tokens: int | None = None
    ) -> tuple[int, int]:
        """Tokens of a block and of a piece: as asked, as measured, or pieces as large as blocks."""
        if block_tokens is not None:
            return block_tokens, piece_tokens or block_tokens
        if self.measurement is None:
            return DEFAULT_BLOCK_TOKENS, piece_tokens or DEFAULT_BLOCK_TOKENS
        return self.measurement.block_tokens, piece_tokens or self.measurement.piece_tokens

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content: equal profiles have equal digests wherever they lie."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def text(self) -> str:
        """The JSON: of a large profile a tenth of a second in which no other thread runs."""
        return self.model_dump_json()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copied = super().model_copy(update=update, deep=deep)
        # Another content is named anew; pydantic would copy what was remembered of this one.
        for remembered in ("digest", "text"):
            copied.__dict__.pop(remembered, None)
        return copied

    @classmethod
    def parse(cls, text: str | bytes, where: str) -> Self:
        """Read a profile's JSON; errors name the field and `where` it stood."""
        try:
            return cls.model_validate(json_of(text, where))
        except ValidationError as error:
            raise ProfileError(f"{where}: {describe(error)}") from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a profile file."""
        return cls.parse(read_bytes(path), str(path))

    def save(self, path: Path) -> None:
        """Write the profile whole or not at all."""
        write_atomically(path, self.model_dump_json() + "\n")
